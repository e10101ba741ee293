// A decoder model with packed weights, adapters and a cache, and its forward pass over a batch of token runs.
//
// Legend: T tokens of a pass, C hidden size, H query heads, K key/value heads, D head size, F feed-forward size,
// V vocabulary, L layers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/cache.h"
#include "engine/crowd.h"
#include "engine/pool.h"
#include "kernels/kernels.h"

namespace riyaz {

// A model has the tensors that its family has.
enum Slot : int {
#define LAYER_SLOT(NAME, GGUF) NAME,
#include "engine/slots.inc"
    LAYER_SLOTS
};
// Slots of the layer after the last
enum Outer : int {
#define OUTER_SLOT(NAME, GGUF) NAME,
#include "engine/slots.inc"
    OUTER_SLOTS
};

// A packed matrix that owns its bytes.
struct Matrix {
    Weights weights;
    std::shared_ptr<uint8_t> bytes;

    Matrix() = default;
    // Of zeros; `group` and `minimum` are those of int4; `group` is that of ternary too, 0: all columns.
    Matrix(Format format, int rows, int cols, int group = GROUP, bool minimum = true);
    size_t size() const { return weights.blocks() * weights.step; }
    explicit operator bool() const { return bool(bytes); }
};

struct Tensor {
    Matrix matrix;              // of a linear or an embedding
    std::vector<float> vector;  // of a norm or a bias
};

struct Config {
#define SETTING(TYPE, NAME) TYPE NAME{};
#include "engine/settings.inc"
};

// What is wanted after a token of a run: the likeliest token; log-probabilities of `names`; or of all tokens, where the
// logits of `names` are divided by `penalty` first if positive, and multiplied if not; or the token's hidden state
// after the final norm.
enum class Want : int { best, named, full, hidden };

struct Row {
    int token = 0;   // its index in the run, soft prompt not counted
    int layer = -1;  // as if the model ended after so many layers; -1: after all, the only one without `Model::traces`
    Want want = Want::best;
    std::vector<int32_t> names;
    float penalty = 1;
    int32_t best = -1;     // result
    float* out = nullptr;  // results: [names], [V] or [C]
};

struct TokenRun {
    int sequence = 0;
    const int32_t* tokens = nullptr;
    int n = 0;
    bool together = false;  // few tokens too are computed by the kernels of many: others are in the pass
    std::vector<Row> rows;  // in the order of their tokens
};

// A LoRA pair, in int8row, or in float32 as the model's inputs
struct Lora {
    Matrix a, b;  // A (r, in) and scale · B (out, r)
};

// The parts of an adapter, at the index of the tensor that they change
struct Adapter {
    std::vector<std::unique_ptr<Tensor>> whole;  // tensors that it replaces
    std::vector<std::unique_ptr<Lora>> pairs;
    std::vector<float> soft_prompt;  // [P][C]
    int low_width = 0;               // the largest rank of its pairs, padded
};

// Inside a pass: the residual stream before the first layer, then behind attention and behind the MLP of each layer,
// [2 L + 1][T][C]; queries and keys of each layer as attention multiplies them, [L][T][H + K][D]
struct Trace {
    int T = 0;
    std::vector<float> residual, turned;
};

class Model {
  public:
    Model(const Config& config, int threads, size_t cache_bytes);
    ~Model();

    Tensor& tensor(int layer, int slot);
    int index(int layer, int slot) const { return layer * LAYER_SLOTS + slot; }
    size_t tensors() const { return tensors_.size(); }  // number of indices
    // The quicker packing of the ternary weights, by a measurement of about 50 ms
    Format quicker_ternary();
    // Packs them so; returns the bytes that this saves
    int64_t repack_ternary(Format format);
    int load(std::shared_ptr<Adapter> adapter);
    void unload(int adapter);
    int soft_tokens(int adapter) const;

    // Sequences as in engine/runner.py; adapter -1 is none
    int open(int adapter);
    int open_after(int sequence, int length);
    int fork(int sequence, int length);
    void close(int sequence);
    void truncate(int sequence, int length);
    int length(int sequence) const;
    int unread(int sequence) const { return states_.at(sequence).vectors; }  // vectors of its soft prompt
    int adapter_of(int sequence) const;

    // Appends each run's tokens to its sequence and fills its rows. Changes nothing and throws CacheFull where keys and
    // values would exceed the limit, std::runtime_error where a wanted logit is not a number.
    void forward(std::vector<TokenRun>& runs);

    const Config config;
    Cache cache;
    // What the last pass computed in all of its tokens, soft prompts included, if `traces`
    bool traces = false;
    Trace trace;
    // For tests: the codes of what enters the ternary linears in the last pass, [layer][QKV, OUT, GATE_UP, BACK][T][C]
    bool keeps_codes = false;
    std::vector<std::vector<int8_t>> kept_codes;

  private:
    friend struct Pass;

    struct State {
        int adapter;
        int vectors;  // of the soft prompt, still to be read before the first token
    };

    int keep(int sequence, int adapter, int vectors);
    const Tensor& at(int adapter, int layer, int slot) const;
    bool has_int8() const;
    bool has_linear(bool ternary) const;
    bool reads_bf16() const;
    const Lora* lora(int adapter, int layer, int slot) const;
    void turn_up_to(int positions);

    std::mutex mutex_;  // one pass at a time
    Pool pool_;
    Crowd crowd_;
    std::vector<Tensor> tensors_;
    std::map<int, std::shared_ptr<Adapter>> adapters_;
    std::map<int, State> states_;
    int next_adapter_ = 0, turned_ = 0, passes_ = 0;
    std::vector<std::vector<float>> cos_, sin_;  // [kind][position][D / 2]
    std::unique_ptr<struct Buffers> buffers_;
};

}  // namespace riyaz
