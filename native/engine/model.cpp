#include "engine/model.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "engine/memory.h"
#include "engine/pass.h"

namespace riyaz {

Matrix::Matrix(Format format, int rows, int cols, int group, bool minimum) {
    weights.format = format, weights.rows = rows;
    weights.cols = padded_cols(format, cols);
    const bool whole = is_ternary(format) && (group < 1 || group > weights.cols);
    weights.group = whole ? weights.cols : group, weights.minimum = minimum;
    weights.step = block_bytes(format, weights.cols, weights.group, minimum);
    bytes = take_memory(size());
    weights.data = bytes.get();
}

Model::Model(const Config& given, int threads, size_t cache_bytes)
    : config(given),
      cache(given.layers, given.kv_heads, given.head, given.kv, cache_bytes),
      pool_(threads),
      tensors_(size_t(given.layers) * LAYER_SLOTS + OUTER_SLOTS),
      cos_(given.frequencies.size()),
      sin_(given.frequencies.size()) {
    begin_chunk();
}

Model::~Model() = default;

Tensor& Model::tensor(int layer, int slot) { return tensors_.at(index(layer, slot)); }

const Tensor& Model::at(int adapter, int layer, int slot) const {
    const int i = index(layer, slot);
    const Tensor* own = adapter < 0 ? nullptr : adapters_.at(adapter)->whole[i].get();
    return own ? *own : tensors_[i];
}

const Lora* Model::lora(int adapter, int layer, int slot) const {
    return adapter < 0 ? nullptr : adapters_.at(adapter)->pairs[index(layer, slot)].get();
}

// Whether a linear of a layer has weights in int8: they are exact in products of many tokens with groups of 32 columns
bool Model::has_int8() const {
    return std::any_of(tensors_.begin(), tensors_.end() - OUTER_SLOTS, [](const Tensor& tensor) {
        return tensor.matrix && tensor.matrix.weights.format == Format::int8;
    });
}

// Whether a linear of a layer, or one that an adapter has in its place, has ternary weights or others
bool Model::has_linear(bool ternary) const {
    const auto is_one = [&](const Tensor& tensor) {
        return tensor.matrix && is_ternary(tensor.matrix.weights.format) == ternary;
    };
    const auto end = tensors_.end() - OUTER_SLOTS;
    return std::any_of(tensors_.begin(), end, is_one) ||
           std::any_of(adapters_.begin(), adapters_.end(), [&](const auto& item) {
               const auto& whole = item.second->whole;
               return std::any_of(whole.begin(), whole.end() - OUTER_SLOTS,
                                  [&](const auto& own) { return own && is_one(*own); });
           });
}

// Whether a product may read inputs in bfloat16
bool Model::reads_bf16() const {
    const auto is_bf16 = [](const Tensor& tensor) {
        return tensor.matrix && tensor.matrix.weights.format == Format::bf16;
    };
    return std::any_of(tensors_.begin(), tensors_.end(), is_bf16) ||
           std::any_of(adapters_.begin(), adapters_.end(), [&](const auto& item) {
               const auto& whole = item.second->whole;
               return std::any_of(whole.begin(), whole.end(), [&](const auto& own) { return own && is_bf16(*own); });
           });
}

int Model::load(std::shared_ptr<Adapter> adapter) {
    for (const auto& pair : adapter->pairs)
        if (pair) adapter->low_width = std::max(adapter->low_width, padded(pair->b.weights.cols, GROUP));
    adapters_[next_adapter_] = std::move(adapter);
    return next_adapter_++;
}

void Model::unload(int adapter) { adapters_.erase(adapter); }

int Model::soft_tokens(int adapter) const {
    return adapter < 0 ? 0 : int(adapters_.at(adapter)->soft_prompt.size()) / config.hidden;
}

int Model::keep(int sequence, int adapter, int vectors) {
    states_[sequence] = {adapter, vectors};
    return sequence;
}

int Model::open(int adapter) { return keep(cache.open(), adapter, soft_tokens(adapter)); }

int Model::open_after(int sequence, int length) {
    return keep(cache.open_after(sequence, length), states_.at(sequence).adapter, 0);
}

int Model::fork(int sequence, int length) {
    const State parent = states_.at(sequence);
    return keep(cache.fork(sequence, length), parent.adapter, 0);
}

void Model::close(int sequence) {
    cache.close(sequence);
    states_.erase(sequence);
}

void Model::truncate(int sequence, int length) {
    if (states_.at(sequence).vectors) throw std::logic_error("a soft prompt that is not read");
    cache.truncate(sequence, length);
}

int Model::length(int sequence) const { return cache.length(sequence) + states_.at(sequence).vectors; }

int Model::adapter_of(int sequence) const { return states_.at(sequence).adapter; }

void Model::turn_up_to(int positions) {
    if (positions <= turned_) return;
    turned_ = std::min(padded(positions, 256), std::max(positions, config.context));
    const size_t half = config.head / 2;
    for (size_t kind = 0; kind < config.frequencies.size(); kind++) {
        cos_[kind].resize(turned_ * half), sin_[kind].resize(turned_ * half);
        for (int p = 0; p < turned_; p++)
            for (size_t i = 0; i < half; i++) {
                const float angle = float(p) / config.position_divisors[kind] * config.frequencies[kind][i];
                cos_[kind][p * half + i] = std::cos(angle), sin_[kind][p * half + i] = std::sin(angle);
            }
    }
}

}  // namespace riyaz
