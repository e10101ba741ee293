// A BERT encoder with packed weights: texts to unit vectors, the means of their tokens' last states.
//
// Legend: T tokens, C hidden size, H heads, D head size, F feed-forward size, L layers.
#pragma once

#include <mutex>

#include "engine/model.h"

namespace riyaz {

struct EncoderConfig {
    int layers = 0, hidden = 0, heads = 0, inner = 0, vocabulary = 0, context = 0;
    bool fp32 = false;  // weights, inputs, keys and values in float32 throughout; else in bfloat16
    float eps = 0;
};

struct EncoderLayer {
    Matrix qkv;          // (3 C, C): the rows of q, scaled by 1 / sqrt(D), of k and of v
    Matrix o, up, down;  // (C, C), (F, C), (C, F)
    std::vector<float> qkv_bias, o_bias, up_bias, down_bias;
    std::vector<float> attention_norm, attention_norm_bias, output_norm, output_norm_bias;
};

// A thread computes whole texts, some hundred tokens at a time, through all layers: texts need nothing of each other,
// so threads do not wait for each other either. A text's vector does not depend on its neighbours.
class Encoder {
  public:
    Encoder(const EncoderConfig& config, int threads, const Kernels& kernels);
    ~Encoder();

    // Unit vectors [n][C] of n texts laid end to end in `tokens`, each of `lengths` tokens, 1 to `context`. Throws
    // std::runtime_error for a vector that is not finite. May be called by several threads; they wait for each other.
    void embed(const int32_t* tokens, const int32_t* lengths, int n, float* out);

    const EncoderConfig config;
    std::vector<float> words;      // [vocabulary][C]
    std::vector<float> positions;  // [context][C]: of the position and of type 0
    std::vector<float> norm, norm_bias;
    std::vector<EncoderLayer> layers;

  private:
    friend struct TextPass;

    const Kernels& k_;
    const bool by_tiles_;
    Pool pool_;
    std::mutex busy_;
    std::vector<std::unique_ptr<struct TextBuffers>> buffers_;  // of each thread
};

}  // namespace riyaz
