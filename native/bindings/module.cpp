// The model in Python: checks what comes from there, then calls the engine. Only this folder has Python headers.
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <thread>
#include <utility>

#include "bindings/bindings.h"
#include "engine/memory.h"
#include "engine/model.h"
#include "simd/dispatch.h"

namespace riyaz {

void bind_matrix(nb::module_& m);              // matrix.cpp
void bind_encoder(nb::module_& m);             // encoder.cpp
void bind_training(nb::module_& m);            // training.cpp
void bind_training_functions(nb::module_& m);  // training_functions.cpp

namespace {

// The names of the slots of a layer, or of those outside the layers, in their order
std::vector<std::string> slot_names(bool outer) {
    std::vector<std::string> layer = {
#define LAYER_SLOT(NAME, GGUF) GGUF,
#include "engine/slots.inc"
    };
    std::vector<std::string> outside = {
#define OUTER_SLOT(NAME, GGUF) GGUF,
#include "engine/slots.inc"
    };
    return outer ? outside : layer;
}

int slot_named(const std::string& name, bool outer) {
    static const std::vector<std::string> layer = slot_names(false), outside = slot_names(true);
    const auto& names = outer ? outside : layer;
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) refuse("unknown tensor " + name);
    return int(found - names.begin());
}

// Bytes per second that `threads` threads read from `data`, and multiply-adds per second of the int8 or bf16 product
double read_bandwidth(size_t bytes, int threads, int rounds) {
    Matrix memory(Format::fp32, ROWS, int(bytes / (ROWS * 4)));
    memset(memory.bytes.get(), 1, memory.size());
    Pool pool(threads);
    const size_t part = memory.size() / threads / 256 * 256;
    double best = 0;
    for (int round = 0; round < rounds; round++) {
        const auto start = std::chrono::steady_clock::now();
        std::atomic<uint64_t> sum{0};
        pool.run([&](int thread) { sum += kernels().read(memory.bytes.get() + part * thread, part); });
        const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::max(best, double(part * threads) / taken);
    }
    return best;
}

double peak(int kind, int threads) {
    Pool pool(threads);
    std::vector<double> each(threads);
    pool.run([&](int thread) { each[thread] = kernels().peak(kind); });
    double all = 0;
    for (const double one : each) all += one;
    return all;
}

template <class T>
T setting_from(nb::handle value) {
    return nb::cast<T>(value);
}
template <>
Kv setting_from(nb::handle value) {
    const auto name = nb::cast<std::string>(value);
    if (name == "fp32") return Kv::fp32;
    if (name == "bf16") return Kv::bf16;
    if (name == "int8") return Kv::int8;
    refuse("unknown type of keys and values " + name);
}
template <>
Activation setting_from(nb::handle value) {
    const auto name = nb::cast<std::string>(value);
    if (name == "silu") return Activation::silu;
    if (name == "gelu_tanh") return Activation::gelu_tanh;
    if (name == "relu2") return Activation::relu2;
    refuse("unknown activation " + name);
}

Config config_from(nb::dict d) {
    Config c;
    size_t count = 0;
#define SETTING(TYPE, NAME) c.NAME = setting_from<TYPE>(d[#NAME]), count++;
#include "engine/settings.inc"
    if (d.size() != count) refuse("an unknown setting");
    for (const int size : {c.layers, c.hidden, c.heads, c.kv_heads, c.head, c.inner, c.vocabulary, c.context})
        if (size < 1) refuse("a size is below 1");
    if (c.heads % c.kv_heads || c.head % 2) refuse("heads do not divide");
    if (c.head > MAX_HEAD) refuse("heads of more than " + std::to_string(MAX_HEAD) + " numbers");
    if (int(c.windows.size()) != c.layers || int(c.rotations.size()) != c.layers) refuse("windows or rotations");
    if (c.position_divisors.size() != c.frequencies.size()) refuse("position_divisors");
    for (const int kind : c.rotations)
        if (kind >= int(c.frequencies.size())) refuse("rotations");
    for (const auto& each : c.frequencies)
        if (int(each.size()) != c.head / 2) refuse("frequencies");
    return c;
}

void set_tensor(Tensor& tensor, nb::object value) {
    if (nb::isinstance<Matrix>(value)) {
        tensor.matrix = nb::cast<Matrix&>(value);
    } else {
        const auto array = nb::cast<In<float, 1>>(value);
        tensor.vector.assign(array.data(), array.data() + array.size());
    }
}

int load(Model& model, nb::list whole, nb::list pairs, nb::object soft_prompt) {
    auto adapter = std::make_shared<Adapter>();
    adapter->whole.resize(model.tensors()), adapter->pairs.resize(model.tensors());
    for (nb::handle item : whole) {
        const auto [layer, slot, value] = nb::cast<std::tuple<int, std::string, nb::object>>(item);
        auto& own = adapter->whole.at(model.index(layer, slot_named(slot, layer == model.config.layers)));
        own = std::make_unique<Tensor>();
        set_tensor(*own, value);
    }
    for (nb::handle item : pairs) {
        const auto [layer, slot, a, b] = nb::cast<std::tuple<int, std::string, nb::object, nb::object>>(item);
        adapter->pairs.at(model.index(layer, slot_named(slot, false))) =
            std::make_unique<Lora>(nb::cast<Matrix&>(a), nb::cast<Matrix&>(b));
    }
    if (!soft_prompt.is_none()) {
        const auto vectors = nb::cast<In<float, 2>>(soft_prompt);
        if (int(vectors.shape(1)) != model.config.hidden) refuse("the soft prompt's width");
        adapter->soft_prompt.assign(vectors.data(), vectors.data() + vectors.size());
    }
    return model.load(std::move(adapter));
}

// Numbers as an array in Python, which owns them from then on
nb::ndarray<nb::numpy, float> held(std::vector<float>&& numbers, std::initializer_list<size_t> shape) {
    auto own = std::make_unique<std::vector<float>>(std::move(numbers));
    float* at = own->data();
    nb::capsule owner(own.get(), [](void* vector) noexcept { delete (std::vector<float>*)vector; });
    own.release();
    return nb::ndarray<nb::numpy, float>(at, shape, owner);
}

// Runs the model. `sequences` (N,), `counts` (N,) tokens of each, `tokens` (sum of counts,); `rows` (W, 5): run, token
// in it, kind (Want), number of its names, layers before it (-1: all); `names` all names in order; `penalties` (W,);
// `together` (N,): whether the kernels of many tokens compute a run however few it has. Returns the likeliest token of
// each row (W,) and all log-probabilities or hidden states, row by row.
nb::tuple forward(Model& model, In<int32_t, 1> sequences, In<int32_t, 1> counts, In<int32_t, 1> tokens,
                  In<int32_t, 2> rows, In<int32_t, 1> names, In<float, 1> penalties, In<bool, 1> together) {
    const int V = model.config.vocabulary;
    const auto numbers = [&](const int32_t* row) {  // of a row's result
        const Want want = Want(row[2]);
        return want == Want::full ? V : want == Want::named ? row[3] : want == Want::hidden ? model.config.hidden : 0;
    };
    if (counts.size() != sequences.size() || rows.shape(1) != 5 || penalties.size() != rows.shape(0) ||
        together.size() != sequences.size())
        refuse("sizes differ");
    for (size_t i = 0; i < tokens.size(); i++)
        if (tokens.data()[i] < 0 || tokens.data()[i] >= V)
            refuse("token " + std::to_string(tokens.data()[i]) + " is not in the vocabulary");
    std::vector<TokenRun> runs(sequences.size());
    size_t at = 0;
    for (size_t i = 0; i < runs.size(); i++) {
        const int n = counts.data()[i];
        if (n < 0 || at + n > tokens.size() || (!n && !model.unread(sequences.data()[i])))
            refuse("a run without tokens");
        if (model.length(sequences.data()[i]) + n > model.config.context) refuse("a sequence beyond the context");
        runs[i].sequence = sequences.data()[i], runs[i].tokens = tokens.data() + at, runs[i].n = n;
        runs[i].together = together.data()[i];
        at += n;
    }
    size_t size = 0, name = 0;
    for (size_t i = 0; i < rows.shape(0); i++) {
        const int32_t* row = rows.data() + 5 * i;
        if (row[4] >= (model.traces ? model.config.layers : 0)) refuse("no such layer is traced");
        if (row[0] < 0 || size_t(row[0]) >= runs.size() || row[1] < 0 || row[1] >= runs[row[0]].n || row[2] < 0 ||
            row[2] > int(Want::hidden) || row[3] < 0 || name + row[3] > names.size())
            refuse("a wanted row is outside its run");
        size += numbers(row);
        name += row[3];
    }
    nb::capsule values_owner, best_owner;
    float* values = fresh<float>(size, values_owner);
    int32_t* best = fresh<int32_t>(rows.shape(0), best_owner);
    std::vector<std::pair<int, size_t>> place;
    float* out = values;
    name = 0;
    for (size_t i = 0; i < rows.shape(0); i++) {
        const int32_t* row = rows.data() + 5 * i;
        Row wanted;
        wanted.token = row[1], wanted.layer = row[4], wanted.want = Want(row[2]), wanted.penalty = penalties.data()[i],
        wanted.out = out;
        wanted.names.assign(names.data() + name, names.data() + name + row[3]);
        for (const int32_t each : wanted.names)
            if (each < 0 || each >= V) refuse("a name is not in the vocabulary");
        name += row[3], out += numbers(row);
        place.emplace_back(row[0], runs[row[0]].rows.size());
        runs[row[0]].rows.push_back(std::move(wanted));
    }
    {
        nb::gil_scoped_release release;
        model.forward(runs);
    }
    for (size_t i = 0; i < place.size(); i++) best[i] = runs[place[i].first].rows[place[i].second].best;
    return nb::make_tuple(nb::ndarray<nb::numpy, int32_t, nb::ndim<1>>(best, {rows.shape(0)}, best_owner),
                          nb::ndarray<nb::numpy, float, nb::ndim<1>>(values, {size}, values_owner));
}

}  // namespace
}  // namespace riyaz

NB_MODULE(_native, m) {
    using namespace riyaz;
    nb::set_leak_warnings(false);
    m.doc() = "Riyaz's CPU engine; riyaz.native loads it.";
    m.attr("LAYOUT_VERSION") = LAYOUT_VERSION;
    m.attr("LAYER_SLOTS") = nb::cast(slot_names(false));
    m.attr("OUTER_SLOTS") = nb::cast(slot_names(true));
    m.def("isa", &isa, "The instruction set whose kernels run; ValueError if RIYAZ_ISA names none that can.");
    m.def("isas", &isas, "The instruction sets that this build holds and this CPU can run, best last.");
    m.def("read_bandwidth", &read_bandwidth, nb::arg("bytes"), nb::arg("threads"), nb::arg("rounds") = 5,
          nb::call_guard<nb::gil_scoped_release>(),
          "Bytes per second that threads read together, the best of the rounds.");
    m.def("peak", &peak, nb::arg("kind"), nb::arg("threads"), nb::call_guard<nb::gil_scoped_release>(),
          "Multiply-adds per second of all threads in registers: kind 0 int8, 1 bfloat16.");

    m.def("begin_chunk", &begin_chunk,
          "Matrices made from here on, as those of an adapter, share no memory with those before.");

    nb::exception<CacheFull>(m, "CacheFull", PyExc_RuntimeError);
    bind_matrix(m);
    nb::class_<Model>(m, "Model", "A decoder model, its adapters and its cache.")
        .def(
            "__init__",
            [](Model* self, nb::dict config, int threads, size_t cache_bytes) {
                new (self) Model(config_from(config), threads, cache_bytes);
            },
            nb::arg("config"), nb::arg("threads"), nb::arg("cache_bytes"))
        .def(
            "set",
            [](Model& self, int layer, const std::string& slot, nb::object value) {
                if (layer < 0 || layer > self.config.layers) refuse("no such layer");
                set_tensor(self.tensor(layer, slot_named(slot, layer == self.config.layers)), value);
            },
            "Set a tensor: a Matrix, or float32 (n,) of a norm or bias. The layer after the last holds the outer ones.")
        .def(
            "quicker_ternary",
            [](Model& self) {
                nb::gil_scoped_release release;
                return std::string(self.quicker_ternary() == Format::trits ? "trits" : "ternary");
            },
            "The quicker format of the ternary weights, measured in about 50 ms.")
        .def(
            "repack_ternary",
            [](Model& self, const std::string& format) {
                const Format form = format_named(format);
                if (!is_ternary(form)) refuse("no ternary format");
                nb::gil_scoped_release release;
                return self.repack_ternary(form);
            },
            "Packs the ternary weights in this format; returns the bytes that this saves.")
        .def_rw("traces", &Model::traces)
        .def(
            "trace",
            [](Model& self) {
                const Config& c = self.config;
                const size_t T = self.trace.T, L = c.layers, C = c.hidden, heads = c.heads + c.kv_heads, D = c.head;
                auto taken = std::exchange(self.trace, {});
                return nb::make_tuple(held(std::move(taken.residual), {2 * L + 1, T, C}),
                                      held(std::move(taken.turned), {L, T, heads, D}));
            },
            "Once `traces` is set: of the last pass the residual stream before the first layer, then behind attention "
            "and behind the MLP of each layer (2 L + 1, T, C); queries and keys as attention multiplies them "
            "(L, T, H + K, D), all queries first. They can be taken once.")
        .def_rw("keeps_codes", &Model::keeps_codes)
        .def(
            "codes",
            [](const Model& self, int layer, int product) {
                const size_t at = size_t(layer) * 4 + product;
                if (layer < 0 || product < 0 || product > 3 || at >= self.kept_codes.size())
                    refuse("no codes are kept");
                const auto& kept = self.kept_codes[at];
                nb::capsule owner;
                int8_t* out = fresh<int8_t>(kept.size(), owner);
                std::copy(kept.begin(), kept.end(), out);
                return nb::ndarray<nb::numpy, int8_t, nb::ndim<1>>(out, {kept.size()}, owner);
            },
            "Once `keeps_codes` is set: what entered the ternary linears of a layer in the last pass, token by token, "
            "columns padded to 32; product 0 is q, k and v, 1 o, 2 gate and up, 3 down.")
        .def("load", &load, nb::arg("whole"), nb::arg("pairs"), nb::arg("soft_prompt").none(),
             "Load an adapter: tensors that it replaces (layer, slot, value), LoRA pairs (layer, slot, A, scale · B), "
             "and a "
             "soft prompt (P, C); returns its number.")
        .def("unload", &Model::unload)
        .def("soft_tokens", &Model::soft_tokens)
        .def("open", &Model::open)
        .def("open_after", &Model::open_after)
        .def("fork", &Model::fork)
        .def("close", &Model::close)
        .def("truncate", &Model::truncate)
        .def("length", &Model::length)
        .def("adapter_of", &Model::adapter_of)
        .def("forward", &forward)
        .def_prop_ro("cache_bytes", [](const Model& self) { return self.cache.bytes(); })
        .def_prop_ro("cache_limit", [](const Model& self) { return self.cache.limit(); })
        .def("bytes_of", [](const Model& self, int tokens) { return self.cache.bytes_of(tokens); });
    bind_encoder(m);
    bind_training(m);
    bind_training_functions(m);
}
