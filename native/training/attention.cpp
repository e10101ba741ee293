#include "training/attention.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include "kernels/kernels.h"
#include "training/team.h"

namespace riyaz {
namespace {

constexpr int TASKS = 32;           // parts are so large that there are about as many, over all heads,
constexpr double LEAST = 1 << 20;   // but have at least as many multiply-adds in one product
constexpr int NO_WINDOW = 1 << 30;  // keys
constexpr int TOKENS = 64;          // whose gradients one task sums

// Memory of one call after the other: kept, because fresh pages cost more than the work
struct Workshop {
    std::mutex busy;
    std::unique_ptr<float[]> memory;
    size_t size = 0;

    float* floats(size_t count) {
        if (count > size) {
            memory.reset();
            memory.reset(new float[count]), size = count;
        }
        return memory.get();
    }
};

Workshop& workshop() {
    static Workshop* const shop = new Workshop;  // never destroyed: a thread may be at work when the process ends
    return *shop;
}

// Pieces [begin, end): the work of one task for each head. `tokens` of keys have gradients there, from `base` on behind
// the prefix's.
struct RowPart {
    int begin, end, base, tokens;
};

struct Plan {
    std::vector<RowPiece> pieces;
    std::vector<RowPart> parts;
    std::vector<RowPiece> shared;  // rows that several pieces see: the prefix, and those that are cut
    size_t panels = 0;             // most that a part needs at a time
};

std::vector<RowPiece> whole_rows(const PackedAttention& job, const std::vector<int>& lengths) {
    std::vector<RowPiece> rows;
    if (job.prefix) rows.push_back({0, 0, 0, job.prefix});
    int start = job.prefix;
    for (const int length : lengths) rows.push_back({start, job.prefix, 0, length}), start += length;
    return rows;
}

// Scores of the queries [first, last) of a row
double scores_of(const PackedAttention& job, const RowPiece& row, int first, int last) {
    double sum = 0;
    for (int i = first; i < last; i++) sum += std::min(row.before + i + 1, job.window);
    return sum;
}

void end_part(const PackedAttention& job, Plan& plan) {
    const int begin = plan.parts.empty() ? 0 : plan.parts.back().end, end = int(plan.pieces.size());
    if (begin == end) return;
    RowPart part{begin, end, -1, 0};
    for (int i = begin; i < end; i++) {
        const RowPiece& piece = plan.pieces[i];
        if (job.prefix && !piece.before) continue;
        if (part.base < 0) part.base = piece.start;
        part.tokens = piece.start + piece.last - part.base;
    }
    plan.parts.push_back(part);
}

// Cuts the rows, and long ones at blocks of queries, into parts of about equal cost.
Plan plan_for(const PackedAttention& job, const std::vector<int>& lengths) {
    Plan plan;
    const int block = MOST_LINES / (job.H / job.K);
    const std::vector<RowPiece> rows = whole_rows(job, lengths);
    double all = 0, cost = 0;
    for (const RowPiece& row : rows) all += scores_of(job, row, 0, row.last);
    const double most = std::max(1.0, double(TASKS) / job.K), worth = LEAST / (double(job.H / job.K) * job.D);
    const double target = std::max(all / most, worth);
    for (const RowPiece& row : rows) {
        plan.panels = std::max(plan.panels, panels_of(row.before) + panels_of(row.last));
        const bool is_prefix = job.prefix && !row.before;
        int first = 0;
        for (int at = 0; at < row.last; at += block) {
            const int next = std::min(at + block, row.last);
            cost += scores_of(job, row, at, next);
            const bool full = cost >= (next == row.last ? 0.75 : 1.25) * target;
            if (!full && next < row.last) continue;
            const bool whole = !first && next == row.last && !is_prefix;
            if (!whole && next == row.last) plan.shared.push_back(row);
            plan.pieces.push_back({row.start, row.before, first, next, whole}), first = next;
            if (full) end_part(job, plan), cost = 0;
        }
    }
    end_part(job, plan);
    return plan;
}

// Where the sums of a token's gradients stand: of some parts, each for one head
struct Gradients {
    const PackedAttention& job;
    const Plan& plan;
    std::vector<size_t> offsets;  // of each part, in tokens
    size_t tokens = 0;            // of all parts, for one head
    float* data;                  // [head][keys, values][tokens][width]

    float* of(size_t part, int head, int kind) const {
        return data + ((size_t(head) * 2 + kind) * tokens + offsets[part]) * padded_width(job.D);
    }
    void sum(int begin, int end, int head) const;
};

// Rounds the sums of tokens [begin, end) of the stream over the parts that see them, in the order of the parts.
void Gradients::sum(int begin, int end, int head) const {
    const int width = padded_width(job.D), behind = padded_keys(job.prefix);
    std::vector<const float*> from;
    for (int kind = 0; kind < 2; kind++)
        for (int token = begin; token < end; token++) {
            from.clear();
            for (size_t p = 0; p < plan.parts.size(); p++) {
                const RowPart& part = plan.parts[p];
                const int own = token - part.base;
                if (token < job.prefix)
                    from.push_back(of(p, head, kind) + size_t(token) * width);
                else if (part.base >= 0 && own >= 0 && own < part.tokens)
                    from.push_back(of(p, head, kind) + size_t(behind + own) * width);
            }
            kernels().round_sum(from.data(), int(from.size()), job.D, kind ? job.grad_v : job.grad_k,
                                (size_t(token) * job.K + head) * job.D, job.bf16);
        }
}

Gradients gradients_of(const PackedAttention& job, const Plan& plan) {
    Gradients sums{job, plan, {}, 0, nullptr};
    for (const RowPart& part : plan.parts) {
        sums.offsets.push_back(sums.tokens);
        sums.tokens += padded_keys(job.prefix) + part.tokens + IN_TILES;
    }
    return sums;
}

size_t aligned(size_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace

void attention_forward(PackedAttention job, const std::vector<int>& rows, int threads) {
    if (!job.window) job.window = NO_WINDOW;
    const Plan plan = plan_for(job, rows);
    const int parts = int(plan.parts.size());
    const size_t each = aligned(attention_scratch(padded_width(job.D), plan.panels));
    const std::lock_guard<std::mutex> lock(workshop().busy);
    float* memory = workshop().floats(each * threads);
    share(parts * job.K, threads, [&](int task, int thread) {
        const RowPart& part = plan.parts[task / job.K];
        kernels().training_forward(job, &plan.pieces[part.begin], part.end - part.begin, task % job.K,
                                   memory + each * thread);
    });
}

void attention_backward(PackedAttention job, const std::vector<int>& rows, int threads) {
    if (!job.window) job.window = NO_WINDOW;
    const Plan plan = plan_for(job, rows);
    const int parts = int(plan.parts.size()), width = padded_width(job.D);
    Gradients sums = gradients_of(job, plan);
    const size_t each = aligned(attention_scratch(width, plan.panels));
    const std::lock_guard<std::mutex> lock(workshop().busy);
    float* memory = workshop().floats(each * threads + sums.tokens * width * job.K * 2);
    sums.data = memory + each * threads;
    share(parts * job.K, threads, [&](int task, int thread) {
        const int p = task / job.K, head = task % job.K;
        const RowPart& part = plan.parts[p];
        kernels().training_backward(job, &plan.pieces[part.begin], part.end - part.begin, head, memory + each * thread,
                                    sums.of(p, head, 0), sums.of(p, head, 1));
    });
    for (const RowPiece& row : plan.shared) {
        const int end = row.start + row.last;
        share((row.last + TOKENS - 1) / TOKENS * job.K, threads, [&](int task, int) {
            const int begin = row.start + task / job.K * TOKENS;
            sums.sum(begin, std::min(begin + TOKENS, end), task % job.K);
        });
    }
}

}  // namespace riyaz
