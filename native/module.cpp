// The Python module bisquit.engine._native: models and sessions over NumPy arrays. std::invalid_argument is ValueError.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "session.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace bisquit;

namespace {

template <class T, int Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

// A new array of a shape, filled by `fill(data, count)`.
template <class T, class Fill>
nb::ndarray<nb::numpy, T> made(std::initializer_list<size_t> shape, const Fill& fill) {
    const size_t count = std::accumulate(shape.begin(), shape.end(), size_t(1), std::multiplies<size_t>());
    std::unique_ptr<T[]> data(new T[count]);
    fill(data.get(), count);
    T* kept = data.release();
    nb::capsule owner(kept, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::ndarray<nb::numpy, T>(kept, shape, owner);
}

template <class T>
nb::ndarray<nb::numpy, T> copied(const T* data, std::initializer_list<size_t> shape) {
    return made<T>(shape, [&](T* to, size_t count) { std::copy_n(data, count, to); });
}

// An entry of a dictionary of arrays, which must outlive what is returned. The casts copy nothing: other types fail.
std::optional<Array> find(const nb::dict& arrays, const std::string& name) {
    if (!arrays.contains(name.c_str())) return std::nullopt;
    const nb::object value = arrays[name.c_str()];
    Array out;
    const auto take = [&](const auto& array) {
        for (size_t i = 0; i < array.ndim(); ++i) out.shape.push_back(array.shape(i));
    };
    nb::ndarray<const float, nb::c_contig, nb::device::cpu> floats;
    nb::ndarray<const int8_t, nb::c_contig, nb::device::cpu> codes;
    nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu> integers;
    if (nb::try_cast(value, floats, false)) {
        out.floats = floats.data();
        take(floats);
    } else if (nb::try_cast(value, codes, false)) {
        out.codes = codes.data();
        take(codes);
    } else if (nb::try_cast(value, integers, false)) {
        out.integers = integers.data();
        take(integers);
    } else {
        throw std::invalid_argument(name + " must be a contiguous array, float32, int8 or int32");
    }
    return out;
}

// A model from keyword arguments of Python.
void make_model(PackedModel* self, bool is_int8, int width, int n_layers, int n_heads, int feed_forward, int codebook,
                int length, int neighbours, float score_unit, double epsilon, const nb::dict& arrays) {
    const Shape shape{width, n_layers, n_heads, feed_forward, codebook, length, neighbours, score_unit};
    new (self) PackedModel(is_int8, shape, epsilon, [&](const std::string& name) { return find(arrays, name); });
}

// A tokenizer from keyword arguments of Python.
void make_tokenizer(PackedTokenizer* self, int patch_size, int width, int channels, int encoder_blocks,
                    int decoder_blocks, float code_step, const nb::dict& arrays) {
    const TokenizerShape shape{patch_size, width, channels, encoder_blocks, decoder_blocks};
    new (self) PackedTokenizer(shape, code_step, [&](const std::string& name) { return find(arrays, name); });
}

using Frames = nb::ndarray<const uint8_t, nb::shape<-1, -1, -1, 3>, nb::c_contig, nb::device::cpu>;

PackedTokenizer::Batch batch_of(size_t count, size_t height, size_t width, int threads, const std::string& kernels) {
    for (size_t n : {count, height, width})
        if (n > 1 << 20) throw std::invalid_argument(std::to_string(n) + " is too many pictures or pixels at a time");
    return {static_cast<int>(count), static_cast<int>(height), static_cast<int>(width), threads, find_kernels(kernels)};
}

// Vectors must be of the codebook, on the grid of frames of a batch's size.
void check_vectors(const PackedTokenizer& tokenizer, const PackedTokenizer::Batch& batch,
                   const In<int8_t, 4>& vectors) {
    const size_t wanted[] = {size_t(batch.count), size_t(tokenizer.rows(batch.height)),
                             size_t(tokenizer.columns(batch.width)), size_t(tokenizer.shape().channels)};
    if (!std::equal(wanted, wanted + 4, vectors.shape_ptr()))
        throw std::invalid_argument("vectors must be (" + std::to_string(wanted[0]) + ", " + std::to_string(wanted[1]) +
                                    ", " + std::to_string(wanted[2]) + ", " + std::to_string(wanted[3]) +
                                    ") for frames of this size");
}

nb::ndarray<nb::numpy, float> project(const PackedTokenizer& self, Frames frames, int threads,
                                      const std::string& kernels) {
    const auto batch = batch_of(frames.shape(0), frames.shape(1), frames.shape(2), threads, kernels);
    return made<float>({frames.shape(0), size_t(self.rows(batch.height)), size_t(self.columns(batch.width)),
                        size_t(self.shape().channels)},
                       [&](float* projected, size_t) {
                           const nb::gil_scoped_release release;
                           self.project(batch, frames.data(), projected);
                       });
}

nb::ndarray<nb::numpy, uint8_t> decode(const PackedTokenizer& self, In<int8_t, 4> vectors, size_t height, size_t width,
                                       int threads, const std::string& kernels) {
    const auto batch = batch_of(vectors.shape(0), height, width, threads, kernels);
    check_vectors(self, batch, vectors);
    return made<uint8_t>({vectors.shape(0), height, width, 3}, [&](uint8_t* frames, size_t) {
        const nb::gil_scoped_release release;
        self.decode(batch, vectors.data(), frames);
    });
}

nb::ndarray<nb::numpy, float> slopes(const PackedTokenizer& self, In<int8_t, 4> vectors, Frames frames, int threads,
                                     const std::string& kernels) {
    const auto batch = batch_of(frames.shape(0), frames.shape(1), frames.shape(2), threads, kernels);
    check_vectors(self, batch, vectors);
    return made<float>({vectors.shape(0), vectors.shape(1), vectors.shape(2), vectors.shape(3)},
                       [&](float* slopes, size_t) {
                           const nb::gil_scoped_release release;
                           self.slopes(batch, vectors.data(), frames.data(), slopes);
                       });
}

using Places = std::optional<In<float, 3>>;
using Around = std::optional<In<int32_t, 3>>;

// The ways that places (n, length, width) and around (n, length, neighbours) make for `count` pictures, one of each or
// one for all; none, if there are no places.
std::optional<Ways> ways_of(const PackedModel& model, size_t count, const Places& places, const Around& around) {
    if (!places && !around) return std::nullopt;
    const Shape& shape = model.model().shape;
    const auto fits = [&](const auto& array, int columns) {
        return array && (array->shape(0) == count || array->shape(0) == 1) && array->shape(1) == size_t(shape.length) &&
               array->shape(2) == size_t(columns);
    };
    if (!fits(places, shape.width) || !fits(around, shape.neighbours) || places->shape(0) != around->shape(0))
        throw std::invalid_argument("places and around must be (n, " + std::to_string(shape.length) + ", " +
                                    std::to_string(shape.width) + ") and (n, " + std::to_string(shape.length) + ", " +
                                    std::to_string(shape.neighbours) + "), n being 1 or " + std::to_string(count));
    return Ways(shape, static_cast<int>(places->shape(0)), places->data(), around->data());
}

// Read tokens (B, length); `what` makes a picture's readings of its number.
template <class What>
void read_tokens(const PackedModel& model, In<int64_t, 2> tokens, int threads, const std::string& kernels,
                 const Places& places, const Around& around, What what) {
    if (tokens.shape(1) != size_t(model.model().shape.length))
        throw std::invalid_argument("a picture has " + std::to_string(model.model().shape.length) + " tokens, not " +
                                    std::to_string(tokens.shape(1)));
    if (tokens.shape(0) > 1 << 30) throw std::invalid_argument("there are more than 2**30 pictures");
    const int batch = static_cast<int>(tokens.shape(0));
    std::vector<Reading> readings;
    for (int i = 0; i < batch; ++i) readings.push_back(what(size_t(i) * tokens.shape(1)));
    const std::optional<Ways> ways = ways_of(model, tokens.shape(0), places, around);
    const nb::gil_scoped_release release;
    if (!read(model, batch, tokens.data(), threads, kernels, readings, ways ? &*ways : nullptr))
        throw std::overflow_error(
            "the prior's logits are not finite: its weights are damaged, or its training diverged");
}

nb::ndarray<nb::numpy, float> read_logits(const PackedModel& self, In<int64_t, 2> tokens, int threads,
                                          const std::string& kernels, const Places& places, const Around& around) {
    const size_t codebook = self.model().shape.codebook;
    return made<float>({tokens.shape(0), tokens.shape(1), codebook}, [&](float* to, size_t) {
        read_tokens(self, tokens, threads, kernels, places, around,
                    [&](size_t first) { return Reading{to + first * codebook, nullptr, nullptr}; });
    });
}

nb::ndarray<nb::numpy, float> read_bits(const PackedModel& self, In<int64_t, 2> tokens, int threads,
                                        const std::string& kernels, const Places& places, const Around& around) {
    return made<float>({tokens.shape(0), tokens.shape(1)}, [&](float* to, size_t) {
        read_tokens(self, tokens, threads, kernels, places, around,
                    [&](size_t first) { return Reading{nullptr, to + first, nullptr}; });
    });
}

nb::ndarray<nb::numpy, int64_t> read_intervals(const PackedModel& self, In<int64_t, 2> tokens, int threads,
                                               const std::string& kernels, const Places& places, const Around& around) {
    return made<int64_t>({tokens.shape(0), tokens.shape(1), 2}, [&](int64_t* to, size_t) {
        read_tokens(self, tokens, threads, kernels, places, around,
                    [&](size_t first) { return Reading{nullptr, nullptr, to + 2 * first}; });
    });
}

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Kernels* kernels : usable_kernels()) names.emplace_back(kernels->name);
    return names;
}

// A session over arrays, which refuses to be used by two threads at once.
class GuardedSession {
  public:
    GuardedSession(const PackedModel& model, int batch, int threads, const std::string& kernels,
                   std::vector<float> scales)
        : session(model, batch, threads, kernels, std::move(scales)) {}

    void go(In<float, 3> places, In<int32_t, 3> around) {
        const Guard guard(busy);
        session.go(*ways_of(session.model, session.count(), places, around));
    }

    void seed(In<uint32_t, 1> seeds) {
        const Guard guard(busy);
        if (seeds.shape(0) != size_t(session.batch))
            throw std::invalid_argument(std::to_string(seeds.shape(0)) + " seeds for " + std::to_string(session.batch) +
                                        " pictures");
        session.seed(seeds.data());
    }
    void give(In<int64_t, 2> tokens, std::optional<In<uint8_t, 2>> known) {
        const Guard guard(busy);
        check_shape(tokens.shape(0), tokens.shape(1));
        if (known) check_shape(known->shape(0), known->shape(1));
        session.give(tokens.data(), known ? known->data() : nullptr);
    }
    std::vector<int> advance(int until, std::optional<Race> race) {
        const Guard guard(busy);
        const nb::gil_scoped_release release;
        return session.advance(until, race);
    }
    void decode(const nb::callable& choose) {
        const Guard guard(busy);
        const size_t codebook = session.shape().codebook, stride = session.shape().codebook_stride();
        std::exception_ptr failure;
        const Session::Choose chosen = [&](int first, int rows, const int32_t* frequencies, int64_t* tokens) {
            const nb::gil_scoped_acquire acquire;
            if (failure) return false;
            try {
                const auto array = made<int32_t>({size_t(rows), codebook}, [&](int32_t* to, size_t) {
                    for (int row = 0; row < rows; ++row)
                        std::copy_n(frequencies + row * stride, codebook, to + row * codebook);
                });
                nb::ndarray<const int64_t, nb::ndim<1>, nb::device::cpu> found;  // of any stride
                if (!nb::try_cast(choose(first, array), found, false) || found.shape(0) != size_t(rows))
                    throw std::invalid_argument("a chooser must return int64 (" + std::to_string(rows) + ",)");
                for (int row = 0; row < rows; ++row) {
                    check_token(session.shape(), found(row));
                    tokens[row] = found(row);
                }
                return true;
            } catch (...) {
                failure = std::current_exception();
                return false;
            }
        };
        {
            const nb::gil_scoped_release release;
            session.decode(chosen);
        }
        if (failure) std::rethrow_exception(failure);
    }
    void decide(int picture, int64_t token) {
        const Guard guard(busy);
        session.decide(picture, token);
    }
    int done(int picture) {
        const Guard guard(busy);
        return session.done(picture);
    }
    void take(In<int64_t, 1> tokens) {
        const Guard guard(busy);
        if (tokens.shape(0) != size_t(session.batch))
            throw std::invalid_argument(std::to_string(tokens.shape(0)) + " tokens for " +
                                        std::to_string(session.batch) + " pictures");
        session.take(tokens.data());
    }
    nb::ndarray<nb::numpy, float> all_logits() {
        const Guard guard(busy);
        const size_t codebook = session.shape().codebook;
        return made<float>({size_t(session.batch), codebook}, [&](float* to, size_t) {
            for (int i = 0; i < session.batch; ++i) std::copy_n(session.logits(i), codebook, to + i * codebook);
        });
    }
    nb::ndarray<nb::numpy, float> logits(int picture) {
        const Guard guard(busy);
        return copied(session.logits(picture), {size_t(session.shape().codebook)});
    }
    nb::ndarray<nb::numpy, uint32_t> words(int picture) {
        const Guard guard(busy);
        return copied(session.words(picture), {2 * size_t(session.shape().codebook)});
    }
    bool is_finite() {
        const Guard guard(busy);
        return session.is_finite();
    }
    nb::ndarray<nb::numpy, int64_t> tokens() {
        const Guard guard(busy);
        return copied(session.tokens(), {size_t(session.batch), size_t(session.shape().length)});
    }

  private:
    struct Guard {
        explicit Guard(std::atomic<bool>& busy) : busy(busy) {
            if (busy.exchange(true)) throw std::runtime_error("the session is in use by another thread");
        }
        ~Guard() { busy = false; }
        std::atomic<bool>& busy;
    };

    void check_shape(size_t rows, size_t columns) const {
        if (rows != size_t(session.batch) || columns != size_t(session.shape().length))
            throw std::invalid_argument("tokens are (" + std::to_string(rows) + ", " + std::to_string(columns) +
                                        "): they must be (" + std::to_string(session.batch) + ", " +
                                        std::to_string(session.shape().length) + ")");
    }

    Session session;
    std::atomic<bool> busy{false};
};

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The native decoder; bisquit.engine.native is its face.";
    m.def("kernels", &kernel_names, "The kernels that this processor can run, the fastest first.");

    nb::class_<Race>(m, "Race", "How tokens are drawn: see bisquit.sampling.SamplingConfig.")
        .def(nb::init<float, int, float, float, float>(), "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "doubt"_a);

    nb::class_<PackedModel>(m, "Model")
        .def("__init__", &make_model, nb::kw_only(), "is_int8"_a, "width"_a, "n_layers"_a, "n_heads"_a,
             "feed_forward"_a, "codebook"_a, "length"_a, "neighbours"_a, "score_unit"_a, "epsilon"_a, "arrays"_a,
             "Pack a model's arrays. Raises ValueError where one is missing, of another shape or type, not finite or "
             "out of range.")
        .def("read_logits", &read_logits, "tokens"_a, "threads"_a, "kernels"_a = "", "places"_a = nb::none(),
             "around"_a = nb::none(),
             "The logits (B, length, codebook) of tokens (B, length), each given those before it.")
        .def("read_bits", &read_bits, "tokens"_a, "threads"_a, "kernels"_a = "", "places"_a = nb::none(),
             "around"_a = nb::none(), "What each token costs (B, length).")
        .def("read_intervals", &read_intervals, "tokens"_a, "threads"_a, "kernels"_a = "", "places"_a = nb::none(),
             "around"_a = nb::none(),
             "What the frequencies of the codes before each token sum to, and its own (B, length, 2).");

    nb::class_<PackedTokenizer>(m, "Tokenizer")
        .def("__init__", &make_tokenizer, nb::kw_only(), "patch_size"_a, "width"_a, "channels"_a, "encoder_blocks"_a,
             "decoder_blocks"_a, "code_step"_a, "arrays"_a,
             "Pack a tokenizer's arrays. Raises ValueError where one is missing, of another shape or type, not finite "
             "or out of range.")
        .def("project", &project, "frames"_a, "threads"_a, "kernels"_a = "",
             "What the tokens of frames are decided by (B, h, w, channels).")
        .def("decode", &decode, "vectors"_a, "height"_a, "width"_a, "threads"_a, "kernels"_a = "",
             "The frames (B, height, width, 3) of what tokens stand for (B, h, w, channels).")
        .def(
            "slopes", &slopes, "vectors"_a, "frames"_a, "threads"_a, "kernels"_a = "",
            "How half of the squared error changes with what the decoder takes of each channel (B, h, w, channels), in "
            "255ths.");

    nb::class_<GuardedSession>(m, "Session")
        .def(nb::init<const PackedModel&, int, int, const std::string&, std::vector<float>>(), "model"_a, "batch"_a,
             "threads"_a, "kernels"_a = "", "scales"_a = std::vector<float>(), nb::keep_alive<1, 2>())
        .def("go", &GuardedSession::go, "places"_a, "around"_a,
             "Take ways of their own: of all pictures, and behind them of all guides, or one for all.")
        .def("seed", &GuardedSession::seed, "seeds"_a, "Draw picture i's races from a Mersenne twister with seeds[i].")
        .def("give", &GuardedSession::give, "tokens"_a, "known"_a = nb::none(),
             "Take tokens (B, length) as given where known, everywhere if it is None.")
        .def("advance", &GuardedSession::advance, "until"_a, "race"_a.none() = nb::none(),
             "Decode until a step; return the pictures whose last race is in doubt, which have stopped there.")
        .def("decide", &GuardedSession::decide, "picture"_a, "token"_a, "Replace the token that a picture took last.")
        .def("take", &GuardedSession::take, "tokens"_a, "Replace the tokens (B,) that all took last.")
        .def("all_logits", &GuardedSession::all_logits, "The logits (B, codebook) of the last tokens.")
        .def("decode", &GuardedSession::decode, "choose"_a,
             "Decode all pictures: choose(first, frequencies (n, codebook)) returns tokens (n,) of pictures from first "
             "on. "
             "Several threads call it. What it raises ends the session.")
        .def("done", &GuardedSession::done, "picture"_a, "How many tokens of a picture are done.")
        .def("logits", &GuardedSession::logits, "picture"_a, "The logits (codebook,) of a picture's last token.")
        .def("words", &GuardedSession::words, "picture"_a, "The random words (2 codebook,) of a picture's last race.")
        .def_prop_ro("is_finite", &GuardedSession::is_finite, "Whether all logits so far were finite.")
        .def_prop_ro("tokens", &GuardedSession::tokens, nb::rv_policy::automatic,
                     "All tokens (B, length); those to come are as given, else 0.");
}
