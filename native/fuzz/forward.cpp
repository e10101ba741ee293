// The engine: a tiny model of any format and option, and the calls that an input says: sequences opened, forked, cut
// and closed, adapters loaded and unloaded, runs of tokens with every kind of wanted row. What the cache has no room
// for changes nothing.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "fuzz/bytes.h"
#include "fuzz/tiny_model.h"

namespace riyaz::fuzz {
namespace {

constexpr Format FORMATS[] = {Format::fp32,  Format::bf16,    Format::int8, Format::int4,
                              Format::int4k, Format::ternary, Format::trits};
constexpr int SEQUENCES = 12, ADAPTERS = 3;  // at once, at most

Choices chosen(Bytes& in) {
    Choices c;
    c.linears = FORMATS[in.whole(0, 6)], c.kv = Kv(in.whole(0, 2)), c.activation = Activation(in.whole(0, 2));
    c.layers = in.whole(1, 2), c.kv_heads = in.whole(1, 2), c.window = in.whole(0, 3) * 16, c.cached = in.whole(1, 40);
    const int bits = in.byte(), more = in.byte();
    c.fp32 = c.linears == Format::fp32 || (bits & 1 && is_ternary(c.linears)), c.layer_norm = bits & 2,
    c.one_qkv = bits & 4;
    c.has_gate = !(bits & 8), c.has_biases = bits & 16, c.has_head_norms = bits & 32, c.has_sub_norms = bits & 64;
    c.has_positions = bits & 128, c.has_head = more & 1, c.turns = !(more & 2), c.caps = more & 4;
    return c;
}

class Session {
  public:
    explicit Session(Bytes& in) : in_(in), choices_(chosen(in)), model_(model_of(choices_)) {
        model_->traces = in.byte() % 16 == 1;
    }

    void run() {
        while (!in_.empty()) {
            try {
                one();
            } catch (const std::logic_error&) {  // what the engine refuses
            }
        }
    }

  private:
    void one() {
        const int call = in_.whole(0, 15), id = sequences_.empty() ? in_.byte() : sequences_[in_.byte() % size()];
        if (call == 0) return load();
        if (call == 1 && adapters_.size()) return model_->unload(unused_adapter());
        if (call == 2) return close(id);
        if (call == 3) return model_->truncate(id, in_.whole(-1, 150));
        if (call >= 8) return forward();
        if (size() >= SEQUENCES) return;
        if (call == 4) return sequences_.push_back(model_->open_after(id, in_.whole(-1, 150)));
        if (call == 5) return sequences_.push_back(model_->fork(id, in_.whole(-1, 150)));
        const int place = in_.byte();
        const bool bare = place % 2 || adapters_.empty();
        sequences_.push_back(model_->open(bare ? -1 : adapters_[place / 2 % adapters_.size()]));
    }

    size_t size() const { return sequences_.size(); }

    void load() {
        if (adapters_.size() >= ADAPTERS) return;
        const int rank = in_.whole(1, 40), which = in_.byte(), vectors = in_.whole(0, 3);
        adapters_.push_back(model_->load(adapter_of(*model_, choices_, rank, which, vectors)));
    }

    // As engine/native/runner.py: an adapter goes when no sequence has it
    int unused_adapter() {
        const int adapter = adapters_[in_.byte() % adapters_.size()];
        for (const int id : sequences_)
            if (model_->adapter_of(id) == adapter) throw std::logic_error("in use");
        std::erase(adapters_, adapter);
        return adapter;
    }

    void close(int id) {
        model_->close(id);
        std::erase(sequences_, id);
    }

    // What bindings/module.cpp lets through: sequences that are there, tokens in the vocabulary, no text beyond the
    // context.
    void forward() {
        if (sequences_.empty()) return;
        std::vector<TokenRun> runs;
        std::vector<std::vector<int32_t>> tokens;
        std::vector<std::vector<float>> outs;
        const int count = in_.whole(1, 3);
        tokens.reserve(count), outs.reserve(256);
        for (int i = 0; i < count; i++) {
            TokenRun run;
            run.sequence = sequences_[in_.byte() % size()];
            const bool again =
                std::any_of(runs.begin(), runs.end(), [&](auto& one) { return one.sequence == run.sequence; });
            const int n = in_.byte() % 8 == 7 ? in_.whole(0, 80) : in_.whole(0, 3);
            if (again || (!n && !model_->unread(run.sequence)) || model_->length(run.sequence) + n > CONTEXT) continue;
            for (const uint8_t token : in_.values<uint8_t>(n)) {
                if (run.n++ == 0) tokens.emplace_back();
                tokens.back().push_back(token % VOCABULARY);
            }
            if (n) run.tokens = tokens.back().data();
            run.together = in_.byte() % 4 == 3;
            for (int rows = n ? in_.whole(0, 3) : 0; rows > 0; rows--) run.rows.push_back(wanted(n, outs));
            runs.push_back(std::move(run));
        }
        compute(runs);
    }

    Row wanted(int n, std::vector<std::vector<float>>& outs) {
        Row row;
        row.token = in_.byte() % n, row.want = Want(in_.whole(0, 3));
        row.layer = model_->traces ? in_.whole(-1, choices_.layers - 1) : -1;
        for (int names = in_.whole(0, 4); names > 0; names--) row.names.push_back(in_.whole(0, VOCABULARY - 1));
        row.penalty = row.want == Want::full && in_.flag() ? in_.any<float>() : 1;
        const size_t size = row.want == Want::full     ? VOCABULARY
                            : row.want == Want::named  ? row.names.size()
                            : row.want == Want::hidden ? size_t(model_->config.hidden)
                                                       : 0;
        outs.emplace_back(size);  // a block of its own: a number beyond it is reported
        row.out = outs.back().data();
        return row;
    }

    void compute(std::vector<TokenRun>& runs) {
        std::vector<int> before;
        for (const TokenRun& run : runs) before.push_back(model_->length(run.sequence));
        int more = 1;
        try {
            model_->forward(runs);
        } catch (const std::exception&) {  // no room for keys and values, a logit that is no number, a fork too early
            more = 0;
        }
        for (size_t i = 0; i < runs.size(); i++) {
            must(model_->length(runs[i].sequence) == before[i] + more * runs[i].n, "the length after a pass");
            for (const Row& row : runs[i].rows)
                if (more && row.want == Want::best) must(row.best >= 0 && row.best < VOCABULARY, "the likeliest token");
        }
        must(model_->cache.bytes() <= model_->cache.limit(), "no more bytes than the limit");
    }

    Bytes& in_;
    const Choices choices_;
    std::unique_ptr<Model> model_;
    std::vector<int> sequences_, adapters_;
};

}  // namespace
}  // namespace riyaz::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    riyaz::fuzz::Bytes in(data, size);
    riyaz::fuzz::Session(in).run();
    return 0;
}
