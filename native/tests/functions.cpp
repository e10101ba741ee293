// Checks of the functions of vectors and of the loops that measure. Lengths fill 16 lanes and do not; every kernel is
// called again with a number that is none.
#include "tests/checks.h"

namespace riyaz::checks {
namespace {

constexpr int LENGTHS[] = {1, 15, 16, 33, 100, 576};

// The largest error of call(kernels, x, out) over all lengths, where out [n] may be off by NEAR * size(i, wanted[i]);
// with a NaN at the middle of x out is NaN there, or everywhere if `spreads`.
template <class Call, class Size>
double compared(const Sets& k, float size_of_x, bool spreads, const Call& call, const Size& size) {
    double worst = 0;
    for (const int n : LENGTHS) {
        Floats x = Random(uint32_t(n)).numbers(n, size_of_x), found(n), wanted(n);
        call(k.checked, x, found), call(k.plain, x, wanted);
        for (int i = 0; i < n; i++) worst = std::max(worst, error(found[i], wanted[i], NEAR * size(x[i], wanted[i])));
        x[n / 2] = NONE;
        call(k.checked, x, found);
        for (int i = 0; i < n; i++)
            if (spreads || i == n / 2) worst = std::max(worst, must(std::isnan(found[i])));
    }
    return worst;
}

double size_of_result(float, float result) { return std::fabs(result); }

double rms_norm_check(const Sets& k) {
    const auto call = [](const Kernels& kernels, const Floats& x, Floats& out) {
        const Floats weight = Random(1).numbers(x.size());
        kernels.rms_norm(x.data(), weight.data(), 1e-6f, int(x.size()), out.data());
    };
    return compared(k, 3, true, call, size_of_result);
}

double layer_norm_check(const Sets& k) {
    const auto call = [](const Kernels& kernels, const Floats& x, Floats& out) {
        const Floats weight = Random(1).numbers(x.size()), bias = Random(2).numbers(x.size());
        kernels.layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, int(x.size()), out.data());
    };
    return compared(k, 3, true, call, [](float, float result) { return 2 + std::fabs(result); });
}

double rotate_check(const Sets& k) {
    double worst = 0;
    for (const int D : {2, 30, 32, 64, 80, 128}) {
        Floats angles = Random(3).numbers(D / 2, 3), cosines(D / 2), sines(D / 2), found = Random(4).numbers(D);
        for (int i = 0; i < D / 2; i++) cosines[i] = std::cos(angles[i]), sines[i] = std::sin(angles[i]);
        Floats wanted = found, none = found;
        none[0] = NONE;
        k.checked.rotate(found.data(), cosines.data(), sines.data(), D, 0.125f);
        k.plain.rotate(wanted.data(), cosines.data(), sines.data(), D, 0.125f);
        k.checked.rotate(none.data(), cosines.data(), sines.data(), D, 0.125f);
        worst = std::max({worst, errors(found, wanted, Sizes(D, NEAR * 0.25)), must(std::isnan(none[0])),
                          must(std::isnan(none[D / 2]))});
    }
    return worst;
}

template <Activation ACTIVATION>
double activate_check(const Sets& k) {
    double worst = 0;
    for (const bool gated : {false, true})
        for (const float size : {1.0f, 100.0f}) {
            const auto call = [gated](const Kernels& kernels, const Floats& x, Floats& out) {
                const Floats y = Random(5).numbers(x.size());
                out = x;
                kernels.activate(out.data(), gated ? y.data() : nullptr, ACTIVATION, int(x.size()));
            };
            const auto allowed = [](float x, float result) { return std::fabs(result) + 1e-6 * std::fabs(x); };
            worst = std::max(worst, compared(k, size, false, call, allowed));
        }
    return worst;
}

double gelu_erf_check(const Sets& k) {
    double worst = 0;
    const Floats bias = Random(6).numbers(576);
    const auto call = [&](const Kernels& kernels, const Floats& x, Floats& out) {
        out = x;
        kernels.gelu_erf(out.data(), bias.data(), int(x.size()));
    };
    for (const float size : {1.0f, 10.0f}) {
        worst = std::max(worst, compared(k, size, false, call, [](float x, float) { return 1 + std::fabs(x); }));
        const Floats x = Random(7).numbers(576, size);
        Floats found;
        call(k.checked, x, found);
        for (int i = 0; i < 576; i++) {
            const double v = x[i] + bias[i], wanted = 0.5 * v * std::erfc(-v * std::sqrt(0.5));
            worst = std::max(worst, error(found[i], wanted, GELU * (1 + std::fabs(v))));
        }
    }
    return worst;
}

double softmax_sums_check(const Sets& k) {
    double worst = 0;
    for (const int n : LENGTHS) {
        Floats x = Random(uint32_t(n)).numbers(n, 30);
        float top, sum, wanted_top, wanted_sum;
        k.checked.softmax_sums(x.data(), n, &top, &sum);
        k.plain.softmax_sums(x.data(), n, &wanted_top, &wanted_sum);
        worst = std::max({worst, error(top, wanted_top, 0), error(sum, wanted_sum, NEAR * wanted_sum)});
        worst = std::max(worst, error(k.checked.largest(x.data(), n), k.plain.largest(x.data(), n), 0));
        x[n / 2] = NONE;
        k.checked.softmax_sums(x.data(), n, &top, &sum);
        worst = std::max(worst, must(std::isnan(sum)));
    }
    return worst;
}

double add_check(const Sets& k) {
    const auto call = [](const Kernels& kernels, const Floats& x, Floats& out) {
        out = Random(8).numbers(x.size());
        kernels.add_to(out.data(), x.data(), int(x.size()));
    };
    return compared(k, 1, false, call, [](float, float) { return 0.0; });
}

double read_check(const Sets& k) {
    Random random(9);
    std::vector<uint8_t> bytes(4096 + 8192);  // and what is prefetched
    for (auto& byte : bytes) byte = uint8_t(random.word());
    return must(k.checked.read(bytes.data(), 4096) == k.plain.read(bytes.data(), 4096));
}

}  // namespace

const std::vector<Check> functions = {
    {"rms_norm", rms_norm_check},
    {"layer_norm", layer_norm_check},
    {"rotate", rotate_check},
    {"activate silu", activate_check<Activation::silu>},
    {"activate gelu_tanh", activate_check<Activation::gelu_tanh>},
    {"gelu_erf", gelu_erf_check},
    {"softmax_sums, largest", softmax_sums_check},
    {"add", add_check},
    {"read", read_check},
};

}  // namespace riyaz::checks
