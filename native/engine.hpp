// The engine as the rest of the world sees it: models packed from plain arrays, and sessions that decode with them.

#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.hpp"

namespace bisquit {

inline void require(bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
}

// Zeros on whole cache lines, which the system gives as they are touched.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t count) {
        if (count > SIZE_MAX / sizeof(T) - LINE) throw std::bad_alloc();
        base.reset(std::calloc(count * sizeof(T) + LINE, 1));
        if (!base) throw std::bad_alloc();
        first = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(base.get()) + LINE - 1) / LINE * LINE);
    }
    T* data() const { return first; }

  private:
    static constexpr size_t LINE = 64;
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> base;
    T* first = nullptr;
};

// An array that someone else owns, rows last: float32, or int8 where `codes` is set, or int32 where `integers` is.
struct Array {
    const float* floats = nullptr;
    const int8_t* codes = nullptr;
    const int32_t* integers = nullptr;
    std::vector<size_t> shape;
};

using Find = std::function<std::optional<Array>(const std::string& name)>;

// A model packed for decoding. Throws std::invalid_argument where arrays are missing, of another shape, not finite or
// out of their range.
class PackedModel {
  public:
    PackedModel(bool is_int8, const Shape& shape, double epsilon, const Find& find);
    PackedModel(const PackedModel&) = delete;

    const Model& model() const { return packed; }
    const bool is_int8;

  private:
    friend class Packer;

    Model packed;
    std::vector<Block> blocks;
    std::vector<Buffer<float>> floats;
    std::vector<Buffer<int8_t>> bytes;
    std::vector<Buffer<int32_t>> integers;
};

// The kernels that this processor can run, the fastest first.
std::vector<const Kernels*> usable_kernels();

// Pictures that are decoded together, each with a memory of its own. Not to be used by two threads at once.
class Session {
  public:
    // Throws std::invalid_argument where a number is out of its range or the kernels are not usable here.
    Session(const PackedModel& model, int batch, int threads, const std::string& kernels);
    Session(const Session&) = delete;

    // Draw the races of each picture from a Mersenne twister with its seed.
    void seed(const uint32_t* seeds);
    // Take tokens as given where `known`, [batch][length], is not zero; everywhere if it is null.
    void give(const int64_t* tokens, const uint8_t* known);
    // Measure what each token costs, from here on.
    void measure();
    // Decode all pictures until a step, with races for the tokens that are not given; without a race, all are taken
    // from `give`. Returns the pictures whose last race was in doubt: `decide` their tokens, and advance again.
    std::vector<int> advance(int until, const std::optional<Race>& race);
    // Replace the token that a picture took last.
    void decide(int picture, int64_t token);
    // How many tokens of a picture are done.
    int done(int picture) const;
    // Whether all logits so far were finite.
    bool is_finite() const;

    const PackedModel& model;
    const int batch;
    const int64_t* tokens() const { return all_tokens.data(); }  // [batch][length]
    const float* bits() const;                                   // [batch][length]
    const float* logits(int picture) const;                      // [codebook]
    const uint32_t* words(int picture) const;                    // [2 codebook]
    const Shape& shape() const { return model.model().shape; }

  private:
    // Decode one group with all threads, or, while the machine seems busy, with this one alone.
    void advance_team(Group& group, const Task& task);
    static void check(const Race& race);
    void check(int picture) const;
    void check(int64_t token) const;
    const Group& group_of(int picture) const { return groups[places[picture].group]; }

    Decode decode;
    int threads;
    int team;
    std::vector<Group> groups;
    std::vector<Picture> pictures;
    struct Place {
        int group, row;
    };
    std::vector<Place> places;  // of each picture
    std::vector<Memory> memory;
    std::vector<Scratch> scratch;
    std::vector<Twister> twisters;
    Buffer<int64_t> all_tokens;
    Buffer<uint8_t> all_known;
    Buffer<float> all_bits;
    std::vector<Buffer<float>> float_room;
    std::vector<Buffer<uint8_t>> byte_room;
};

}  // namespace bisquit
