// The encoder: texts of any tokens and lengths, by a tiny model with ordinary numbers or with those of an input. A
// vector has the length 1, or the call says that it is none.
#include <cmath>
#include <stdexcept>

#include "engine/encoder.h"
#include "fuzz/bytes.h"
#include "fuzz/tiny_model.h"
#include "simd/dispatch.h"

namespace riyaz::fuzz {
namespace {

constexpr int LONGEST = 40;

// The numbers of a norm, a bias or a table: ordinary ones, of which an input may replace a few by any bits
void set(std::vector<float>& to, size_t count, Bytes* in) {
    static const std::vector<float> ordinary = some_numbers(size_t(VOCABULARY) * 64);
    to.assign(ordinary.begin(), ordinary.begin() + count);
    for (int i = in ? in->whole(0, 2) : 0; i > 0; i--) {
        const size_t at = in->any<uint16_t>() % count;
        to[at] = in->any<float>();
    }
}

Encoder& encoder_of(bool fp32, bool scalar, bool wide) {
    static std::map<int, std::unique_ptr<Encoder>> made;
    auto& encoder = made[fp32 + 2 * scalar + 4 * wide];
    if (encoder) return *encoder;
    EncoderConfig c;
    c.layers = 1, c.heads = wide ? 2 : 3, c.hidden = wide ? 64 : 36, c.inner = wide ? 96 : 40;
    c.vocabulary = VOCABULARY, c.context = LONGEST, c.fp32 = fp32, c.eps = 1e-12f;
    encoder = std::make_unique<Encoder>(c, 1, scalar ? kernels_of("scalar") : kernels());
    const int C = c.hidden, F = c.inner;
    const Format format = fp32 ? Format::fp32 : Format::bf16;
    EncoderLayer& layer = encoder->layers[0];
    layer.qkv = some_matrix(format, 3 * C, C), layer.o = some_matrix(format, C, C);
    layer.up = some_matrix(format, F, C), layer.down = some_matrix(format, C, F);
    return *encoder;
}

void run(Bytes& in) {
    const int kind = in.byte();
    Encoder& e = encoder_of(kind & 1, kind & 2, kind & 4);
    Bytes* hostile = kind & 8 ? &in : nullptr;
    const int C = e.config.hidden, F = e.config.inner;
    EncoderLayer& layer = e.layers[0];
    std::vector<int32_t> lengths, tokens;
    for (int texts = in.whole(1, 3); texts > 0; texts--)
        lengths.push_back(in.byte() % 8 ? in.whole(1, 4) : in.whole(1, LONGEST));
    for (const int length : lengths)
        for (const uint8_t token : in.values<uint8_t>(length)) tokens.push_back(token % VOCABULARY);
    for (auto* vector : {&layer.o_bias, &layer.down_bias, &layer.attention_norm, &layer.attention_norm_bias,
                         &layer.output_norm, &layer.output_norm_bias, &e.norm, &e.norm_bias})
        set(*vector, C, hostile);
    set(layer.qkv_bias, 3 * C, hostile), set(layer.up_bias, F, hostile);
    set(e.words, size_t(VOCABULARY) * C, hostile), set(e.positions, size_t(LONGEST) * C, hostile);
    std::vector<float> out(lengths.size() * C);
    try {
        e.embed(tokens.data(), lengths.data(), int(lengths.size()), out.data());
    } catch (const std::runtime_error&) {  // a vector that is not finite
        return;
    }
    for (size_t i = 0; i < lengths.size(); i++) {
        double squares = 0;
        for (int d = 0; d < C; d++) squares += double(out[i * C + d]) * out[i * C + d];
        must(squares < 1.001 && (hostile || squares > 0.999), "the length of a vector");
    }
}

}  // namespace
}  // namespace riyaz::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    riyaz::fuzz::Bytes in(data, size);
    riyaz::fuzz::run(in);
    return 0;
}
