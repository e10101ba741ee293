// One pass of a model over up to some hundred tokens of several runs. All threads call `work`; between its phases they
// meet at barriers. Products share out the rows of the weights, attention shares out heads and queries, all else
// tokens. Of one or two tokens, each thread makes all of that for itself: a norm takes less time than a barrier.
#pragma once

#include <atomic>

#include "engine/memory.h"
#include "engine/model.h"

namespace riyaz {

// Memory that grows, zero at first; what is never written takes no memory, since the system gives pages when they are
// written to.
template <class T>
class Array {
  public:
    Array() = default;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() {
        if (data_) give_back_pages(data_, size_ * sizeof(T));
    }

    T* get(size_t n) {
        if (n <= size_) return data_;
        void* fresh = zeroed_pages(n * sizeof(T));
        if (data_) give_back_pages(data_, size_ * sizeof(T));
        data_ = (T*)fresh, size_ = n;
        return data_;
    }

  private:
    T* data_ = nullptr;
    size_t size_ = 0;
};

// The forms in which a pass needs inputs
struct Forms {
    bool codes = false, bf16 = false, fp32 = false, tokens = false;  // tokens: of ternary weights
    bool strips = false;                                             // in tiles
    int many_tokens_group = MANY_TOKENS_GROUP;                       // of `Inputs`
};

// The arrays behind `Inputs`
struct InputsMemory {
    Array<int8_t> codes, low, token_codes;
    Array<float> scale, sum, fp32, token_scale;
    Array<int32_t> total, token_total;
    Array<uint16_t> bf16, strips;

    Inputs get(int T, int cols, Forms forms);
};

// Rows of a strip of `Inputs` for T tokens. Many tokens are read 32 from any one on. An odd number of tiles, since with
// an even one strips would begin at the same lines of a cache.
static constexpr int strip_rows(int T) { return (padded(T, 32) + 32) | 32; }

// The memory of a pass, kept for the next one
struct Buffers {
    Array<float> x, part, up, low, logits, sketch;
    Array<float> shared;  // q, k, v and what attention makes of them, which nothing reads any more once `gate` is there
    Array<uint8_t> scratch;
    InputsMemory hidden, heads, inner, wanted;
    Array<uint16_t> low_strips[3];
};

// Some tokens of a run that are computed together
struct Piece {
    TokenRun* run = nullptr;
    int sequence = 0, adapter = -1;
    int vectors = 0;   // of the soft prompt, before its tokens
    int first = 0;     // its first token in the run
    int n = 0;         // vectors and tokens
    int position = 0;  // of its first in the sequence
    int begin = 0;     // and in the pass
    bool many = false;
};

// Neighbouring tokens of a pass with the same adapter and the same kind of product
struct Span {
    int begin, n, adapter;
    bool many;
};

// Linears of a layer whose inputs are the same: their rows, one after the other, are shared out together.
struct LinearGroup {
    int index, count, parts[3];
};
constexpr LinearGroup QKV{0, 3, {Q, K, V}}, OUT{1, 1, {O}}, GATE_UP{2, 2, {GATE, UP}}, BACK{3, 1, {DOWN}};
constexpr int LINEAR_GROUPS = 4;

struct Pass {
    Pass(Model& model, std::vector<Piece> pieces, int threads);
    void work(int thread);
    void finish() const;

  private:
    struct Wanted {  // a position whose logits or hidden state are wanted
        Row* row;
        int token;  // in the pass
        int adapter;
        bool many;
    };
    struct Found {  // what one thread has seen of its logits; of a sketch the largest estimate and its variance
        float largest, sum, best;
        int32_t token;
    };
    struct Sum {  // of exp(logit - largest) over a chunk of the vocabulary
        float largest, sum;
    };
    struct Item {  // attention of some tokens of a piece in some query heads of one key/value head
        int piece, head, first, G, from, n;
    };

    struct Blocks {  // of a product
        int begin, end;
        const uint8_t* next;
    };
    struct alignas(64) Grains {  // of a thread's share of a product, a cache line for each
        std::atomic<int> taken{0};
    };
    struct alignas(64) Place {  // where a thread reads next
        Ahead ahead;
    };

    // forward.cpp
    void share(int n, int thread, int& begin, int& end) const;
    // The tokens that a thread works on where not rows are shared out: some, or all in copies of its own
    void share_tokens(int n, int thread, int& begin, int& end) const;
    int own(int thread) const { return copies > 1 ? thread * T : 0; }  // where a thread's copies begin
    float* residual(int thread, int t) const { return x + size_t(own(thread) + t) * c.hidden; }
    void barrier(int thread) {
        if (threads > 1) m.pool_.barrier(places[thread].ahead);
    }
    void tokens_barrier(int thread) {  // after work on tokens
        if (copies == 1) barrier(thread);
    }
    void keep_codes(int thread, int layer, const LinearGroup& which, const Inputs& in) const;
    float* traced(int place, int t) const { return m.trace.residual.data() + (size_t(place) * T + t) * c.hidden; }
    void trace_residual(int thread, int place, int t, const float* from) const;
    void trace_turned(int thread, int layer) const;
    void embed(int thread);
    void norm(int thread, int layer, int slot, bool after_attention);
    void add_residual(int t, int layer, bool attention, float* to, float* scratch) const;
    void normalise(int t, int layer, int slot, const float* from, float* out) const;
    const float* sub_normed(int t, int layer, int slot, const float* from, int C, float* out) const;
    void whole_heads(int thread, int layer);
    void prepare_inner(int thread, int layer);
    // from[C] as inputs of products: `to` is where they go
    void prepare(const float* from, int C, const Inputs& to, bool many) const {
        if (to.token_codes) k.ternary_inputs(from, C, to);
        if (to.codes || to.bf16 || to.strips || to.fp32) (many ? k.many_tokens_inputs : k.inputs)(from, C, to);
    }
    // linears.cpp
    void product(int thread, int layer, const LinearGroup& which, const Inputs& in, float* y, size_t stride);
    void gated(int thread, int layer, const Inputs& in);
    void gated_rows(int thread, int layer, const Inputs& in, const Blocks& blocks);
    void activate(const Span& span, int layer, int row, int n);
    bool is_fused(const Span& span, int layer) const;
    void one_part(int thread, const Span& span, int layer, int slot, int begin, int end, const Inputs& in, float* y,
                  size_t stride, const uint8_t* next);
    void multiply(int thread, bool many, const Weights& w, int begin, int end, const Inputs& in, int n, float* y,
                  size_t stride, bool add, const uint8_t* next) const;
    bool take(int thread, int layer, const LinearGroup& which, int total, Blocks& blocks);
    const uint8_t* following(int thread, int layer, const LinearGroup& which) const;
    const uint8_t* first_weights(int thread, int layer, const LinearGroup& which) const;
    uint8_t* scratch(int thread) const;
    void lora_down(int thread, int layer, const LinearGroup& which, const Inputs& in);
    void await_lora_down(int layer, const LinearGroup& which) const;
    void lora_up(int layer, const LinearGroup& which, int begin, int end, float* y, size_t stride, int thread);
    void lora_up_part(int thread, const Span& span, const Lora& pair, int place, int begin, int end, float* y,
                      size_t stride);
    // attend.cpp
    void plan_attention();
    void positions(int thread, int layer);
    const float* bias_of(int t, int layer, int h) const;
    void position(int layer, int t, int head);
    float* turn(int layer, int t, int h) const;
    void attend(int thread, int layer);
    // head.cpp
    void collect();
    void head(int thread);
    bool is_sketched(const Weights& w, size_t from, size_t to) const;
    void sketched(int thread, const Weights& w, const Inputs& in, int from, int n);
    void chunk(int thread, int begin, int end, float* logits, int from, int n);
    void settle_rows(int thread);

    Model& m;
    const Config& c;
    const Kernels& k;
    Buffers& b;
    std::vector<Piece> pieces;
    std::vector<Span> spans;
    std::vector<Wanted> wanted;
    std::vector<Found> found;  // [thread][wanted]
    std::vector<Sum> sums;     // [wanted][chunk]
    std::vector<Item> items;
    std::vector<std::vector<Segment>> segments;      // of each piece's sequence
    std::vector<Cache::Slot> slots;                  // [T]
    std::vector<int> piece_of;                       // [T]
    std::unique_ptr<std::atomic<int>[]> cursors;     // [L] the next item of attention
    std::unique_ptr<Grains[]> grains;                // [L][4][threads]
    std::unique_ptr<Place[]> places;                 // [threads]
    std::unique_ptr<std::atomic<int>[]> lora_downs;  // [L][4]: products with A that are done
    std::atomic<bool> damaged{false};                // a logit is not a number
    int copies = 1;     // of x and of the inputs made from it: one for each thread, or one for all
    size_t scored = 0;  // of `wanted`, the first so many need logits, the others hidden states
    int T = 0, threads = 1, chunks = 0, heads_width = 0, qkv_width = 0, low_width = 0;
    bool sliced = false;       // attention converts its own results, which no norm and no scale of a token need whole
    bool heads_alone = false;  // an item of attention is all that reads a key/value head: it does `position` too
    float *x = nullptr, *part = nullptr, *qkv = nullptr, *attended = nullptr, *gate = nullptr, *up = nullptr,
          *low = nullptr;
    uint16_t* low_strips[3] = {};
    Forms forms = {}, head_forms = {};  // of the linears of layers, and of the head
    Inputs hidden, heads, inner, last;
};

}  // namespace riyaz
