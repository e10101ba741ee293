// Checks of attention in training, forward and backward, beside plain loops in double. What the kernels write, and
// their scratch, holds no numbers before.
#include "training/attention_jobs.h"

#include "tests/tensors.h"

namespace riyaz::checks {
namespace {

constexpr int NO_WINDOW = 1 << 30;

// Rows behind a prefix that all of them see. No piece has more than `cut` queries; scores are of about `sharp`.
struct Shape {
    std::vector<int> lengths;
    int prefix, window, groups, kv_heads, head;
    float sharp = 1;
    int cut = NO_WINDOW;

    int heads() const { return groups * kv_heads; }
    bool is_prefix(const RowPiece& piece) const { return prefix && !piece.before; }
    bool is_whole(const RowPiece& row) const { return row.last <= cut && !is_prefix(row); }
};

const std::vector<Shape> SHAPES = {
    {{1}, 0, NO_WINDOW, 1, 1, 32},        {{1, 1, 7}, 1, NO_WINDOW, 8, 1, 40},
    {{7, 33, 1}, 0, NO_WINDOW, 8, 2, 64}, {{33, 1, 7}, 5, 7, 1, 3, 32},
    {{7, 19}, 100, 33, 1, 1, 80, 10},     {{130, 3}, 7, NO_WINDOW, 1, 1, 32, 10, 50},
    {{33, 7}, 20, 17, 8, 1, 128, 1, 12},  {{20, 7}, 3, NO_WINDOW, 2, 1, 256, 1, 9},
};

std::vector<RowPiece> whole_rows(const Shape& shape) {
    std::vector<RowPiece> rows;
    if (shape.prefix) rows.push_back({0, 0, 0, shape.prefix});
    int start = shape.prefix;
    for (const int length : shape.lengths) rows.push_back({start, shape.prefix, 0, length}), start += length;
    return rows;
}

// Random tokens of such rows; attention over them in double, and its gradients. Legend: training/attention_jobs.h
struct Packed {
    const Shape& shape;
    bool bf16;
    std::vector<RowPiece> rows;
    size_t T, H, K, D;
    Tensor q, k, v, grad, out, sums;  // `out` and `sums` are what the backward pass is given
    Sums wanted_out, wanted_sums, grad_q, grad_k, grad_v;

    Packed(const Shape& given, bool is_bf16)
        : shape(given),
          bf16(is_bf16),
          rows(whole_rows(given)),
          T(rows.back().start + rows.back().last),
          H(given.heads()),
          K(given.kv_heads),
          D(given.head),
          q(random_tensor(bf16, 1, T * H * D, 3 * given.sharp)),
          k(random_tensor(bf16, 2, T * K * D)),
          v(random_tensor(bf16, 3, T * K * D)),
          grad(random_tensor(bf16, 4, T * H * D)),
          out(bf16, T * H * D),
          sums(false, T * H),
          wanted_out(T * H * D),
          wanted_sums(T * H),
          grad_q(T * H * D),
          grad_k(T * K * D),
          grad_v(T * K * D) {
        for (const RowPiece& row : rows)
            for (int token = 0; token < row.last; token++)
                for (size_t h = 0; h < H; h++) attend(row, token, h);
    }

  private:
    void attend(const RowPiece& row, int token, size_t h) {
        const size_t line = (row.start + token) * H + h, at = line * D;
        const double scale = 1 / std::sqrt(double(D));
        const int last = row.before + token, first = std::max(0, last - shape.window + 1);
        std::vector<size_t> keys;
        Sizes scores;
        double largest = -INFINITY, worth = 0, total = 0;
        for (int p = first; p <= last; p++) {
            keys.push_back(((p < row.before ? p : row.start + p - row.before) * K + h / shape.groups) * D);
            Sum score;
            for (size_t d = 0; d < D; d++) score.add(scale * q[at + d] * k[keys.back() + d]);
            scores.push_back(score.value);
            largest = std::max(largest, score.value), worth = std::max(worth, 1 + 2 * score.size);
        }
        for (const double score : scores) total += std::exp(score - largest);
        wanted_sums[line].add(largest + std::log(total)), wanted_sums[line].size += worth;
        sums.put(line, float(wanted_sums[line].value));
        for (size_t j = 0; j < keys.size(); j++)
            for (size_t d = 0; d < D; d++)
                wanted_out[at + d].add(std::exp(scores[j] - wanted_sums[line].value) * v[keys[j] + d], worth);
        for (size_t d = 0; d < D; d++) out.put(at + d, float(wanted_out[at + d].value));
        for (size_t j = 0; j < keys.size(); j++) {
            const double weight = std::exp(scores[j] - sums[line]);
            Sum pull;
            for (size_t d = 0; d < D; d++)
                pull.add(double(grad[at + d]) * v[keys[j] + d]), pull.add(-double(grad[at + d]) * out[at + d]);
            const Sum slope{weight * scale * pull.value, weight * scale * pull.size * worth};
            for (size_t d = 0; d < D; d++) {
                grad_q[at + d].add(slope, k[keys[j] + d]), grad_k[keys[j] + d].add(slope, q[at + d]);
                grad_v[keys[j] + d].add(weight * grad[at + d], worth);
            }
        }
    }
};

// Pieces whose gradients of keys and values are summed in one place
using Pieces = std::vector<RowPiece>;

std::vector<Pieces> parts_of(const Packed& packed) {
    std::vector<Pieces> parts(1);
    for (const RowPiece& row : packed.rows)
        for (int first = 0; first < row.last; first += packed.shape.cut) {
            const int last = std::min(first + packed.shape.cut, row.last);
            parts.back().push_back({row.start, row.before, first, last, packed.shape.is_whole(row)});
            if (last < row.last) parts.emplace_back();
        }
    return parts;
}

// The gradients of keys and values of one part, for one head
struct Gradients {
    int base = -1, tokens = 0, behind, width;  // `tokens` from `base` on, behind the prefix's
    Floats keys, values;

    Gradients(const Packed& packed, const Pieces& part)
        : behind(padded_keys(packed.shape.prefix)), width(padded_width(packed.shape.head)) {
        for (const RowPiece& piece : part) {
            if (packed.shape.is_prefix(piece)) continue;
            if (base < 0) base = piece.start;
            tokens = piece.start + piece.last - base;
        }
        keys = values = with_guards(Floats(size_t(behind + tokens + IN_TILES) * width, NONE));
    }
    // Where a token's stand; below 0: nowhere
    int place(const Packed& packed, int token) const {
        if (token < packed.shape.prefix) return token * width;
        return base >= 0 && token >= base && token < base + tokens ? (behind + token - base) * width : -1;
    }
};

// What the kernels make of it, by parts
struct Attended {
    Tensor out, sums, grad_q, grad_k, grad_v;
    double worst = 0;  // infinity where a guard was written

    Attended(const Kernels& kernels, Packed& packed)
        : out(packed.bf16, packed.out.size()),
          sums(false, packed.sums.size()),
          grad_q(out),
          grad_k(packed.bf16, packed.k.size()),
          grad_v(grad_k) {
        const std::vector<Pieces> parts = parts_of(packed);
        PackedAttention job;
        job.bf16 = packed.bf16, job.H = int(packed.H), job.K = int(packed.K), job.D = int(packed.D);
        job.prefix = packed.shape.prefix, job.window = packed.shape.window;
        job.q = packed.q.data(), job.k = packed.k.data(), job.v = packed.v.data();
        PackedAttention back = job;
        job.out = out.data(), job.sums = (float*)sums.data();
        back.out = packed.out.data(), back.sums = (float*)packed.sums.data(), back.grad = packed.grad.data();
        back.grad_q = grad_q.data(), back.grad_k = grad_k.data(), back.grad_v = grad_v.data();
        for (int head = 0; head < job.K; head++) {
            std::vector<Gradients> gradients;
            for (const Pieces& part : parts) {
                size_t panels = 0;
                for (const RowPiece& piece : part)
                    panels = std::max(panels, panels_of(piece.before) + panels_of(piece.last));
                const size_t size = attention_scratch(padded_width(job.D), panels);
                Floats scratch = with_guards(Floats(size, NONE)), other = scratch;
                Gradients& sum = gradients.emplace_back(packed, part);
                kernels.training_forward(job, part.data(), int(part.size()), head, scratch.data());
                kernels.training_backward(back, part.data(), int(part.size()), head, other.data(), sum.keys.data(),
                                          sum.values.data());
                worst = std::max({worst, guarded(scratch), guarded(other), guarded(sum.keys), guarded(sum.values)});
            }
            for (const RowPiece& row : packed.rows)
                for (int i = 0; i < row.last && !packed.shape.is_whole(row); i++) {
                    const int token = row.start + i;
                    std::vector<const float*> keys, values;
                    for (const Gradients& sum : gradients) {
                        const int place = sum.place(packed, token);
                        if (place >= 0) keys.push_back(&sum.keys[place]), values.push_back(&sum.values[place]);
                    }
                    const size_t at = size_t(token * job.K + head) * job.D;
                    kernels.round_sum(keys.data(), int(keys.size()), job.D, back.grad_k, at, job.bf16);
                    kernels.round_sum(values.data(), int(values.size()), job.D, back.grad_v, at, job.bf16);
                }
        }
    }
};

// A NaN in the first key of a row spoils the results of the row's tokens that see it, and nothing of other rows.
double damaged_check(const Kernels& kernels, Packed& packed, const Attended& right) {
    const RowPiece& row = packed.rows[packed.shape.prefix ? 1 : 0];
    packed.k.put(size_t(row.start) * packed.K * packed.D + packed.D / 2, NONE);
    const Attended found(kernels, packed);
    const size_t of_token = packed.H * packed.D, of_group = packed.shape.groups * packed.D,
                 of_key = packed.K * packed.D;
    bool holds = true;
    for (int token = 0; token < int(packed.T); token++) {
        const int place = token - row.start;
        if (place < 0 || place >= row.last) {
            for (const auto member : {&Attended::out, &Attended::grad_q})
                holds = holds && (found.*member).is_same(right.*member, token * of_token, of_token);
            if (token < packed.shape.prefix) continue;  // its gradients come from the row too
            for (const auto member : {&Attended::grad_k, &Attended::grad_v})
                holds = holds && (found.*member).is_same(right.*member, token * of_key, of_key);
        } else if (place < packed.shape.window) {
            for (size_t i = token * of_token; i < token * of_token + of_group; i++)
                holds = holds && std::isnan(found.out[i]) && std::isnan(found.grad_q[i]);
        }
    }
    return std::max(found.worst, must(holds));
}

double attention_check(const Sets& k, bool bf16) {
    // where pairs of bfloat16 are multiplied, weights and gradients of scores are rounded first
    const bool in_pairs = bf16 && (k.checked.trains_in_pairs || has_tiles(k.checked));
    const double near = in_pairs ? NEAR + ROUNDED / 2 : NEAR;
    double worst = 0;
    for (const Shape& shape : SHAPES) {
        if (left_out(int(&shape - SHAPES.data()) + bf16, 2)) continue;
        Packed packed(shape, bf16);
        const Attended found(k.checked, packed);
        worst = std::max({worst, found.worst, found.out.error_from(packed.wanted_out, near)});
        worst =
            std::max({worst, found.sums.error_from(packed.wanted_sums), found.grad_q.error_from(packed.grad_q, near)});
        worst = std::max({worst, found.grad_k.error_from(packed.grad_k, near)});
        worst = std::max({worst, found.grad_v.error_from(packed.grad_v, near)});
        worst = std::max(worst, damaged_check(k.checked, packed, found));
    }
    return worst;
}

}  // namespace

const std::vector<Check> training = {
    {"training attention fp32", typed<attention_check, false>},
    {"training attention bf16", typed<attention_check, true>},
};

}  // namespace riyaz::checks
