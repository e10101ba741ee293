// What threads do together, for a build with ThreadSanitizer (`make threads`), which reports races and exits with 66:
// the pool and its barriers, passes of models of every format, the encoder with two callers, packing, memory
// that moves to huge pages meanwhile, and operations of training. Each result must equal that of one thread. The
// argument: how many rounds.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "engine/encoder.h"
#include "engine/memory.h"
#include "fuzz/tiny_model.h"
#include "simd/dispatch.h"
#include "training/attention.h"
#include "training/codes.h"
#include "training/functions.h"

namespace riyaz::fuzz {
namespace {

constexpr int THREADS = 4;
int rounds = 6;  // of each check, and 500 times as many of the pool's

void must(bool holds, const char* what) {
    if (holds) return;
    fprintf(stderr, "WRONG: %s\n", what);
    exit(1);
}

// Each thread writes, and behind the barrier reads what the others have written.
void check_pool() {
    Pool pool(THREADS);
    std::vector<int> written(THREADS), read(THREADS);
    for (int round = 0; round < 500 * rounds; round++) {
        pool.run([&](int thread) {
            written[thread] = round + thread;
            pool.barrier();
            for (const int one : written) read[thread] += one;
            pool.barrier();
        });
        if (round % 500 == 499) std::this_thread::sleep_for(std::chrono::milliseconds(20));  // so that threads sleep
    }
    for (const int sum : read) must(sum == read[0], "sums behind a barrier");
}

// Log-probabilities of all tokens after a text, and after one more token
std::vector<float> answers(Model& model, int adapter, int length, uint32_t seed) {
    const int sequence = model.open(adapter);
    std::vector<int32_t> tokens(length + 1);
    for (int i = 0; i <= length; i++) tokens[i] = int32_t((seed + 7 * i) % VOCABULARY);
    std::vector<float> out(2 * VOCABULARY);
    for (int part = 0; part < 2; part++) {
        std::vector<TokenRun> runs(1);
        runs[0].sequence = sequence, runs[0].n = part ? 1 : length, runs[0].tokens = tokens.data() + part * length;
        Row row;
        row.token = runs[0].n - 1, row.want = Want::full, row.out = out.data() + part * VOCABULARY;
        runs[0].rows.push_back(row);
        model.forward(runs);
    }
    model.close(sequence);
    return out;
}

void check_model(Choices choices) {
    choices.threads = THREADS, choices.layers = 2, choices.kv_heads = 2;
    const auto model = model_of(choices);
    choices.threads = 1;
    const auto alone = model_of(choices);
    const int adapter = model->load(adapter_of(*model, choices, 5, 0xff, 2));
    must(alone->load(adapter_of(*alone, choices, 5, 0xff, 2)) == adapter, "the number of an adapter");
    for (int round = 0; round < rounds; round++)
        for (const int own : {-1, adapter})
            for (const int length : {1, 5, 33, 90})
                must(answers(*model, own, length, round) == answers(*alone, own, length, round), "numbers of a pass");
}

void check_encoder() {
    EncoderConfig c;
    c.layers = 2, c.heads = 2, c.hidden = 64, c.inner = 96, c.vocabulary = VOCABULARY, c.context = 60, c.eps = 1e-12f;
    Encoder encoder(c, THREADS, kernels());
    for (EncoderLayer& layer : encoder.layers) {
        layer.qkv = some_matrix(Format::bf16, 192, 64), layer.o = some_matrix(Format::bf16, 64, 64);
        layer.up = some_matrix(Format::bf16, 96, 64), layer.down = some_matrix(Format::bf16, 64, 96);
        layer.qkv_bias = some_numbers(192), layer.up_bias = some_numbers(96);
        for (auto* vector : {&layer.o_bias, &layer.down_bias, &layer.attention_norm, &layer.attention_norm_bias,
                             &layer.output_norm, &layer.output_norm_bias})
            *vector = some_numbers(64);
    }
    encoder.norm = some_numbers(64), encoder.norm_bias = some_numbers(64);
    encoder.words = some_numbers(size_t(VOCABULARY) * 64), encoder.positions = some_numbers(60 * 64);
    std::vector<int32_t> lengths(24, 50), tokens(24 * 50, 3);
    std::vector<float> one(24 * 64), other(24 * 64);
    const auto embed = [&](std::vector<float>& out) {
        for (int round = 0; round < 10; round++) encoder.embed(tokens.data(), lengths.data(), 24, out.data());
    };
    std::thread second([&] { embed(other); });
    embed(one);
    second.join();
    must(one == other, "vectors of two callers");
}

// Matrices are made and filled by two threads each while others move to huge pages.
void check_memory() {
    const auto fill = [] {
        const std::vector<float> numbers(256 * 64, 0.5f);
        for (int round = 0; round < 40; round++) {
            Matrix matrix(Format::int8, 256, 64);
            pack(matrix, 0, 256, numbers.data(), 64);
            if (round % 8 == 0) begin_chunk();
            if (round % 8 == 4) use_huge_pages();
        }
    };
    std::thread other(fill);
    fill();
    other.join();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // the thread that moves them
}

void check_training() {
    constexpr int T = 70, C = 96, H = 4, D = 16;
    std::vector<float> products[2], attended[2], grads[2];
    for (const int i : {0, 1}) {
        const int threads = i ? THREADS : 1;
        std::vector<float> weights(64 * C), x(T * C), q(T * H * D), sums(T * H), grad(T * H * D);
        for (size_t j = 0; j < weights.size(); j++) weights[j] = std::sin(float(j));
        for (size_t j = 0; j < x.size(); j++) x[j] = std::cos(float(j));
        for (size_t j = 0; j < q.size(); j++) q[j] = std::sin(float(3 * j)), grad[j] = std::cos(float(5 * j));
        FrozenCodes codes(64, C);
        must(codes.fill(0, 64, weights.data(), threads), "finite weights");
        products[i].resize(T * 64), attended[i].resize(q.size()), grads[i].resize(3 * q.size());
        code_product(kernels(), codes, {x.data(), C, false}, T, {products[i].data(), 64, false}, threads);
        PackedAttention job;
        job.H = job.K = H, job.D = D, job.q = job.k = job.v = q.data(), job.out = attended[i].data();
        job.sums = sums.data();
        attention_forward(job, {20, 33, 17}, threads);
        job.grad = grad.data(), job.grad_q = grads[i].data();
        job.grad_k = grads[i].data() + q.size(), job.grad_v = grads[i].data() + 2 * q.size();
        attention_backward(job, {20, 33, 17}, threads);
        std::vector<float> square(weights.size()), mean(weights.size()), slope(weights.size(), 0.1f);
        AdamJob adam;
        adam.weight = weights.data(), adam.mean = mean.data(), adam.square = square.data(), adam.grad = slope.data();
        adam.size = 0.1f, adam.eps = 1e-8f, adam.beta1 = adam.beta2 = 0.9f;
        adam_step(adam, weights.size(), threads);
        products[i].insert(products[i].end(), weights.begin(), weights.end());
    }
    must(products[0] == products[1] && attended[0] == attended[1] && grads[0] == grads[1], "numbers of training");
}

void check_models() {
    for (const Format format : {Format::fp32, Format::bf16, Format::int8, Format::int4, Format::int4k, Format::ternary})
        for (const Kv kv : {Kv::fp32, Kv::bf16, Kv::int8}) {
            Choices choices;
            choices.linears = format, choices.kv = kv, choices.fp32 = format == Format::fp32;
            choices.has_biases = kv == Kv::bf16, choices.has_sub_norms = kv == Kv::int8;
            choices.has_gate = kv != Kv::int8, choices.window = kv == Kv::fp32 ? 16 : 0;
            check_model(choices);
        }
}

}  // namespace
}  // namespace riyaz::fuzz

int main(int count, char** words) {
    using namespace riyaz::fuzz;
    if (count > 1) rounds = std::max(1, atoi(words[1]));
    const std::pair<const char*, void (*)()> checks[] = {{"pool", check_pool},
                                                         {"models", check_models},
                                                         {"encoder", check_encoder},
                                                         {"memory", check_memory},
                                                         {"training", check_training}};
    for (const auto& [name, check] : checks) {
        check();
        printf("%s: right\n", name);
        fflush(stdout);
    }
    return 0;
}
