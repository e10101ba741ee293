// The head after the layers of a pass: hidden states, or logits of the wanted positions, some rows of the vocabulary at
// a time, so that they are in memory together only if all are wanted. And `Model::forward`, which cuts runs into
// passes.
#include <chrono>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "engine/memory.h"
#include "engine/pass.h"

namespace riyaz {
namespace {

constexpr int PIECE = 512;       // most tokens of a run in one piece: a fixed cut, which depends on no other run
constexpr int PASS = 1024;       // most tokens of a pass
constexpr int MANY_TOKENS = 32;  // tokens of a run, and wanted rows, from which on the kernels of many tokens compute
constexpr int BLOCKS = 16;       // of the vocabulary at a time
constexpr int AT_ONCE = 256;     // wanted rows at a time
constexpr int MANY = 16;         // passes after which a model is taken to be used for long
constexpr int FEW = 8;           // tokens of a pass whose phases are short
constexpr int MOST_COLUMNS = 16384;  // of a head that is sketched

}  // namespace

void Pass::collect() {
    for (const Piece& piece : pieces) {
        const int tokens = piece.n - piece.vectors;
        const size_t before = wanted.size();
        int last_layers = 0;  // of the wanted ones; a layer's beside them change no kernel
        for (Row& row : piece.run->rows) {
            const int i = row.token - piece.first;
            if (i < 0 || i >= tokens) continue;
            wanted.push_back({&row, piece.begin + piece.vectors + i, piece.adapter, false});
            last_layers += row.layer < 0;
        }
        if (piece.many && (piece.run->together || last_layers >= MANY_TOKENS))
            for (size_t i = before; i < wanted.size(); i++) wanted[i].many = true;
    }
    const auto hidden_from = std::stable_partition(wanted.begin(), wanted.end(),
                                                   [](const Wanted& one) { return one.row->want != Want::hidden; });
    scored = hidden_from - wanted.begin();
    std::stable_sort(wanted.begin(), hidden_from, [](const Wanted& one, const Wanted& two) {
        return one.many != two.many ? one.many : one.adapter < two.adapter;
    });
    const float low_ = -std::numeric_limits<float>::infinity();
    found.assign(wanted.size() * threads, {low_, 0, low_, -1});
    if (!scored) return;
    chunks = (padded(c.vocabulary, ROWS) / ROWS + BLOCKS - 1) / BLOCKS;
    sums.assign(wanted.size() * chunks, {low_, 0});
    last = b.wanted.get(copies * int(wanted.size()), hidden.cols, head_forms);
    b.logits.get(size_t(threads) * AT_ONCE * BLOCKS * ROWS);
    if (wanted.size() <= MOST_SKETCHED) b.sketch.get(size_t(2 * MOST_SKETCHED) * padded(c.vocabulary, ROWS));
}

void Pass::head(int thread) {
    int begin, end;
    if (m.traces) {
        share(T, thread, begin, end);
        std::vector<float> scratch(c.hidden);
        for (int t = begin; t < end; t++) {
            memcpy(traced(2 * c.layers, t), residual(thread, t), sizeof(float) * c.hidden);
            add_residual(t, c.layers - 1, false, traced(2 * c.layers, t), scratch.data());
        }
        barrier(thread);
    }
    if (wanted.empty()) return;
    share_tokens(int(wanted.size()), thread, begin, end);
    const int first = copies > 1 ? thread * int(wanted.size()) : 0;
    std::vector<float> row(c.hidden), scratch(c.hidden);
    for (int i = begin; i < end; i++) {
        const int layer = wanted[i].row->layer, token = wanted[i].token;
        memcpy(row.data(), layer < 0 ? residual(thread, token) : traced(2 * layer, token), sizeof(float) * c.hidden);
        if (layer < 0) add_residual(token, c.layers - 1, false, row.data(), scratch.data());
        normalise(wanted[i].token, c.layers, FINAL_NORM, row.data(), scratch.data());
        if (size_t(i) < scored)
            prepare(scratch.data(), c.hidden, last.from(first + i), wanted[i].many);
        else if (copies == 1 || thread == 0)  // else each thread has made it
            memcpy(wanted[i].row->out, scratch.data(), sizeof(float) * c.hidden);
    }
    tokens_barrier(thread);
    float* logits = scored ? b.logits.get(0) + size_t(thread) * AT_ONCE * BLOCKS * ROWS : nullptr;
    for (size_t from = 0; from < scored;) {
        size_t to = from + 1;  // neighbours with the same weights
        const auto weights = [&](const Wanted& one) -> const Weights& {
            const Matrix& own = m.at(one.adapter, c.layers, HEAD).matrix;
            return own ? own.weights : m.at(-1, c.layers, EMBEDDING).matrix.weights;
        };
        const Weights& w = weights(wanted[from]);
        while (to < scored && to - from < AT_ONCE && wanted[to].many == wanted[from].many &&
               weights(wanted[to]).data == w.data)
            to++;
        const Inputs in = last.from(first + int(from));
        if (is_sketched(w, from, to)) {
            sketched(thread, w, in, int(from), int(to - from));
            from = to;
            continue;
        }
        share(chunks, thread, begin, end);
        for (int i = begin; i < end; i++) {
            const int block = i * BLOCKS, stop = std::min(block + BLOCKS, w.blocks()), n = int(to - from);
            float* y = logits - size_t(block) * ROWS;  // row 0 of the vocabulary in the first line
            multiply(thread, wanted[from].many, w, block, stop, in, n, y, BLOCKS * ROWS, false, w.block(stop));
            chunk(thread, block * ROWS, std::min(stop * ROWS, w.rows), logits, int(from), n);
        }
        from = to;
    }
    barrier(thread);
    settle_rows(thread);
}

// Whether the likeliest tokens, and nothing else, are wanted of few positions
bool Pass::is_sketched(const Weights& w, size_t from, size_t to) const {
    const auto is_best = [](const Wanted& one) { return one.row->want == Want::best && !one.many; };
    return w.format == Format::int8 && w.cols <= MOST_COLUMNS && wanted.size() <= MOST_SKETCHED &&
           std::all_of(wanted.begin() + from, wanted.begin() + to, is_best);
}

// The likeliest tokens from the upper halves of the head's codes, and from all of its codes only where that does not
// decide.
void Pass::sketched(int thread, const Weights& w, const Inputs& in, int from, int n) {
    const size_t rows = size_t(w.blocks()) * ROWS;
    float *estimates = b.sketch.get(0), *variances = estimates + MOST_SKETCHED * rows;
    int begin, end;
    share(w.blocks(), thread, begin, end);
    if (begin < end) k.sketch(w, begin, end, in, n, estimates, variances, rows, nullptr);
    for (int i = 0; i < n; i++) {
        Found& seen = found[size_t(thread) * wanted.size() + from + i];
        const float* y = estimates + i * rows + begin * ROWS;
        const int count = (end - begin) * ROWS;
        seen.largest = count ? k.largest(y, count) : seen.largest;
        const float* at = std::find(y, y + count, seen.largest);
        if (at != y + count) seen.sum = variances[i * rows + begin * ROWS + (at - y)];
    }
    barrier(thread);
    float of_block[ROWS];
    float* const logits = of_block;  // a product counts its rows from the first of the vocabulary
    int blocks[BLOCKS];
    for (int i = 0; i < n; i++) {
        const Found* best = &found[from + i];
        for (int other = 1; other < threads; other++) {
            const Found* more = &found[size_t(other) * wanted.size() + from + i];
            if (more->largest > best->largest) best = more;
        }
        const float top = best->largest, variance = best->sum;
        for (int block = begin; block < end; block += BLOCKS) {
            const size_t at = i * rows + size_t(block) * ROWS;
            const int count = k.contenders(estimates + at, variances + at, std::min(BLOCKS, end - block) * ROWS, top,
                                           variance, blocks);
            for (int j = 0; j < count; j++) {
                const int own = block + blocks[j];
                k.few_tokens(w, own, own + 1, in.from(i), 1, logits - own * ROWS, ROWS, false, nullptr, nullptr);
                chunk(thread, own * ROWS, std::min((own + 1) * ROWS, w.rows), logits, from + i, 1);
            }
        }
    }
    barrier(thread);  // `found` is read by all until here
}

// Takes what is wanted from logits [n][BLOCKS * ROWS] of the tokens begin ... end - 1.
void Pass::chunk(int thread, int begin, int end, float* logits, int from, int n) {
    const int count = end - begin;
    for (int i = 0; i < n; i++) {
        float* y = logits + size_t(i) * BLOCKS * ROWS;
        const Wanted& one = wanted[from + i];
        Found& seen = found[size_t(thread) * wanted.size() + from + i];
        if (c.logit_cap > 0)
            for (int j = 0; j < count; j++) y[j] = c.logit_cap * std::tanh(y[j] / c.logit_cap);
        if (one.row->want == Want::best) {
            const float largest = k.largest(y, count);
            if (!(largest > seen.best)) continue;
            seen.best = largest;
            int j = 0;
            while (y[j] != largest) j++;
            seen.token = begin + j;
            continue;
        }
        if (one.row->want == Want::full) {
            memcpy(one.row->out + begin, y, sizeof(float) * count);
            continue;
        }
        auto& [largest, sum] = sums[size_t(from + i) * chunks + begin / (BLOCKS * ROWS)];
        k.softmax_sums(y, count, &largest, &sum);
        for (size_t j = 0; j < one.row->names.size(); j++)
            if (const int name = one.row->names[j]; name >= begin && name < end) one.row->out[j] = y[name - begin];
    }
}

// The results of the wanted positions. Sums are added chunk by chunk of the vocabulary, the same way for any number of
// threads.
void Pass::settle_rows(int thread) {
    int begin, end;
    share(int(wanted.size()), thread, begin, end);
    for (int i = begin; i < end; i++) {
        Row& row = *wanted[i].row;
        float log_sum = 0;
        if (row.want == Want::best) {
            Found best = found[i];
            for (int other = 1; other < threads; other++)
                if (const Found& more = found[size_t(other) * wanted.size() + i]; more.best > best.best) best = more;
            row.best = best.token, log_sum = best.best;
        } else if (row.want == Want::hidden) {
            for (int j = 0; j < c.hidden; j++) log_sum += row.out[j];
        } else if (row.want == Want::named) {
            const Sum* parts = sums.data() + size_t(i) * chunks;
            float largest = parts[0].largest, sum = 0;
            for (int j = 1; j < chunks; j++) largest = std::max(largest, parts[j].largest);
            for (int j = 0; j < chunks; j++) sum += parts[j].sum * std::exp(parts[j].largest - largest);
            log_sum = largest + std::log(sum);
            for (size_t j = 0; j < row.names.size(); j++) row.out[j] -= log_sum;
        } else {
            for (const int name : row.names) {
                float& score = row.out[name];
                score = score > 0 ? score / row.penalty : score * row.penalty;
            }
            float largest, sum;
            k.softmax_sums(row.out, c.vocabulary, &largest, &sum);
            log_sum = largest + std::log(sum);
            for (int j = 0; j < c.vocabulary; j++) row.out[j] -= log_sum;
        }
        if (!std::isfinite(log_sum)) damaged = true;
    }
}

void Pass::finish() const {
    if (damaged) throw std::runtime_error("the model's scores of the next token are not finite");
}

void Model::forward(std::vector<TokenRun>& runs) {
    const std::scoped_lock lock(mutex_);
    if (!buffers_) buffers_ = std::make_unique<Buffers>();
    std::vector<Piece> pieces;
    int tokens = 0;
    const auto compute = [&] {
        if (pieces.empty()) return;
        const bool alone = pool_.size() == 1 || (tokens <= FEW && crowd_.alone());
        const auto start = std::chrono::steady_clock::now();
        Pass pass(*this, std::move(pieces), alone ? 1 : pool_.size());
        if (alone)
            pass.work(0);
        else
            pool_.run([&](int thread) { pass.work(thread); });
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        if (tokens <= FEW) crowd_.told(taken.count(), pool_.slept());
        if (++passes_ == MANY) use_huge_pages();
        pass.finish();
        pieces.clear(), tokens = 0;
    };
    std::vector<std::pair<int, int>> appends;
    for (const TokenRun& run : runs) appends.emplace_back(run.sequence, states_.at(run.sequence).vectors + run.n);
    cache.expect(appends);  // before the first pass of many
    try {
        std::map<int, int> ahead;  // tokens of a sequence in this forward
        for (TokenRun& run : runs) {
            const State state = states_.at(run.sequence);
            const int total = state.vectors + run.n;
            for (int from = 0; from < total; from += PIECE) {
                Piece piece;
                piece.run = &run, piece.sequence = run.sequence, piece.adapter = state.adapter;
                piece.n = std::min(PIECE, total - from);
                piece.vectors = std::clamp(state.vectors - from, 0, piece.n);
                piece.first = std::max(0, from - state.vectors);
                piece.position = cache.length(run.sequence) + ahead[run.sequence];
                piece.many = kernels().many_tokens_by != ManyTokens::none && !config.fp32 &&
                             (run.together || piece.n >= MANY_TOKENS);
                if (tokens + piece.n > PASS) {
                    compute();
                    ahead.clear();
                    piece.position = cache.length(run.sequence);
                }
                pieces.push_back(piece);
                tokens += piece.n, ahead[run.sequence] += piece.n;
            }
        }
        compute();
    } catch (...) {
        cache.rollback();
        throw;
    }
    cache.commit();
    for (const TokenRun& run : runs) states_.at(run.sequence).vectors = 0;
}

}  // namespace riyaz
