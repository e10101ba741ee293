// Tiny decoder models of every format and option, for the fuzz target `forward` and for the check of threads.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <tuple>

#include "engine/model.h"
#include "engine/pack.h"

namespace riyaz::fuzz {

constexpr int VOCABULARY = 72, CONTEXT = 160;

// What differs between the models
struct Choices {
    Format linears = Format::fp32;  // not int8row, that of LoRA pairs
    Kv kv = Kv::fp32;
    Activation activation = Activation::silu;
    int layers = 1, kv_heads = 1, threads = 1, window = 0, cached = 64;  // cached: pages that the cache may take
    bool fp32 = false, layer_norm = false, one_qkv = false, has_gate = true, has_biases = false, has_head_norms = false;
    bool has_sub_norms = false, has_positions = false, has_head = false, turns = true, caps = false;
};

// Numbers from -0.5 to 0.5, the same for each count
inline std::vector<float> some_numbers(size_t count) {
    std::mt19937 engine{uint32_t(count)};
    std::vector<float> all(count);
    for (float& number : all) number = float(int32_t(uint32_t(engine()))) * 0x1p-32f;
    return all;
}

// A seeded matrix, made once for each format and size
inline Matrix some_matrix(Format format, int rows, int cols) {
    static std::map<std::tuple<Format, int, int>, Matrix> made;
    Matrix& matrix = made[{format, rows, cols}];
    if (matrix) return matrix;
    matrix = Matrix(format, rows, cols);
    if (is_ternary(format)) {
        std::vector<int8_t> codes(size_t(rows) * cols);
        const std::vector<float> numbers = some_numbers(codes.size());
        for (size_t i = 0; i < codes.size(); i++) codes[i] = int8_t(std::lround(2 * numbers[i]));
        const int groups = padded(matrix.weights.cols, matrix.weights.group) / matrix.weights.group;
        pack_ternary(matrix, 0, rows, codes.data(), std::vector<float>(size_t(rows) * groups, 0.1f).data(), cols);
    } else if (format == Format::int4k) {
        std::vector<uint8_t> blocks(rows * gguf_row_bytes("Q4_K", cols));
        for (size_t i = 0; i < blocks.size(); i++) blocks[i] = i % 144 < 4 ? (i % 2 ? 0x10 : 0) : uint8_t(i * 37);
        pack_gguf(matrix, 0, rows, "Q4_K", blocks.data(), cols);
    } else {
        pack(matrix, 0, rows, some_numbers(size_t(rows) * cols).data(), cols);
    }
    return matrix;
}

inline Config config_of(const Choices& choices) {
    Config c;
    const bool wide = choices.linears == Format::int4k;  // its rows are whole blocks of 256 columns
    c.layers = choices.layers, c.heads = 2, c.kv_heads = choices.kv_heads, c.head = wide ? 128 : 24;
    c.hidden = wide ? 256 : 48, c.inner = wide ? 256 : 80, c.vocabulary = VOCABULARY, c.context = CONTEXT;
    c.fp32 = choices.fp32, c.kv = choices.kv, c.layer_norm = choices.layer_norm, c.activation = choices.activation;
    c.eps = 1e-5f, c.embedding_scale = 1, c.query_scale = 1, c.logit_cap = choices.caps ? 5 : 0;
    c.windows.assign(c.layers, choices.window), c.rotations.assign(c.layers, choices.turns ? 0 : -1);
    if (choices.turns) c.frequencies = {std::vector<float>(c.head / 2, 0.1f)}, c.position_divisors = {2};
    return c;
}

// Rows and columns of a linear of a layer
inline std::pair<int, int> shape_of(const Config& c, const Choices& choices, int slot) {
    const int queries = c.heads * c.head, keys = c.kv_heads * c.head;
    if (slot == Q) return {choices.one_qkv ? queries + 2 * keys : queries, c.hidden};
    if (slot == K || slot == V) return {keys, c.hidden};
    if (slot == O) return {c.hidden, queries};
    if (slot == DOWN) return {c.hidden, c.inner};
    return {c.inner, c.hidden};
}

inline std::vector<Slot> linears_of(const Choices& choices) {
    std::vector<Slot> all = {Q, O, UP, DOWN};
    if (!choices.one_qkv) all.insert(all.end(), {K, V});
    if (choices.has_gate) all.push_back(GATE);
    return all;
}

inline void set_layer(Model& model, const Choices& choices, int layer) {
    const Config& c = model.config;
    const auto put = [&](int slot, size_t count) { model.tensor(layer, slot).vector = some_numbers(count); };
    for (const Slot slot : linears_of(choices)) {
        const auto [rows, cols] = shape_of(c, choices, slot);
        model.tensor(layer, slot).matrix = some_matrix(choices.linears, rows, cols);
    }
    for (const Slot slot : {ATTENTION_NORM, ATTENTION_NORM_BIAS, MLP_NORM, MLP_NORM_BIAS}) put(slot, c.hidden);
    if (choices.has_head_norms) put(Q_NORM, c.head), put(K_NORM, c.head), put(POST_ATTENTION_NORM, c.hidden);
    if (choices.has_sub_norms) put(ATTENTION_SUB_NORM, c.heads * c.head), put(MLP_SUB_NORM, c.inner);
    if (!choices.has_biases) return;
    put(O_BIAS, c.hidden), put(UP_BIAS, c.inner), put(DOWN_BIAS, c.hidden);
    if (choices.has_gate) put(GATE_BIAS, c.inner);
    put(Q_BIAS, size_t(shape_of(c, choices, Q).first));
    if (!choices.one_qkv) put(K_BIAS, c.kv_heads * c.head), put(V_BIAS, c.kv_heads * c.head);
}

inline std::unique_ptr<Model> model_of(const Choices& choices) {
    const Config c = config_of(choices);
    const size_t page = Cache(c.layers, c.kv_heads, c.head, c.kv, 0).page_bytes();
    auto model = std::make_unique<Model>(c, choices.threads, page * choices.cached);
    for (int layer = 0; layer < c.layers; layer++) set_layer(*model, choices, layer);
    const Format outer = choices.fp32 ? Format::fp32 : Format::int8;
    model->tensor(c.layers, EMBEDDING).matrix = some_matrix(outer, VOCABULARY, c.hidden);
    if (choices.has_positions) model->tensor(c.layers, POSITIONS).matrix = some_matrix(outer, CONTEXT, c.hidden);
    if (choices.has_head) model->tensor(c.layers, HEAD).matrix = some_matrix(outer, VOCABULARY, c.hidden);
    model->tensor(c.layers, FINAL_NORM).vector = some_numbers(c.hidden);
    model->tensor(c.layers, FINAL_NORM_BIAS).vector = some_numbers(c.hidden);
    return model;
}

// A LoRA of this rank on the linears whose bits are set, and a soft prompt of so many vectors
inline std::shared_ptr<Adapter> adapter_of(const Model& model, const Choices& choices, int rank, int which,
                                           int vectors) {
    const Config& c = model.config;
    auto adapter = std::make_shared<Adapter>();
    adapter->whole.resize(model.tensors()), adapter->pairs.resize(model.tensors());
    const Format format = choices.fp32 ? Format::fp32 : Format::int8row;
    const std::vector<Slot> linears = linears_of(choices);
    for (int layer = 0; layer < c.layers; layer++)
        for (size_t i = 0; i < linears.size(); i++) {
            if (!(which >> i & 1)) continue;
            const auto [rows, cols] = shape_of(c, choices, linears[i]);
            adapter->pairs[model.index(layer, linears[i])] =
                std::make_unique<Lora>(some_matrix(format, rank, cols), some_matrix(format, rows, rank));
        }
    adapter->soft_prompt = some_numbers(size_t(vectors) * c.hidden);
    return adapter;
}

}  // namespace riyaz::fuzz
