// The engine as the rest of the world sees it: models packed from plain arrays, and sessions that decode with them.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "model.hpp"
#include "tokenizer.hpp"

namespace bisquit {

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
    Room room;
};

struct Kernels {
    const char* name;
    Decode float32;
    Decode int8;
    TokenizerKernels tokenizer;
};

// The kernels that this processor can run, the fastest first.
std::vector<const Kernels*> usable_kernels();

// Those of a name, the fastest if it is empty. Throws std::invalid_argument if this processor cannot run them.
const Kernels& find_kernels(const std::string& name);

// A tokenizer packed for use: pictures to tokens and back, each by one thread, several at a time.
class PackedTokenizer {
  public:
    // Throws std::invalid_argument as `PackedModel` does.
    PackedTokenizer(const TokenizerShape& shape, const Find& find);
    PackedTokenizer(const PackedTokenizer&) = delete;

    // A batch of pictures of one size, and how to work on it.
    struct Batch {
        int count, height, width, threads;
        const Kernels& kernels;
    };
    // frames: [count][height][width][3]. tokens: [count][rows][columns], of the grid. slopes: [count][rows][columns]
    // [bits]. Throw std::invalid_argument where a number is out of its range.
    void encode(const Batch& batch, const uint8_t* frames, int64_t* tokens) const;
    void decode(const Batch& batch, const int64_t* tokens, uint8_t* frames) const;
    void slopes(const Batch& batch, const int64_t* tokens, const uint8_t* frames, float* slopes) const;

    const TokenizerShape& shape() const { return packed.shape; }
    int rows(int height) const { return (height + shape().patch_size - 1) / shape().patch_size; }
    int columns(int width) const { return rows(width); }

  private:
    Convolution convolution(const Find& find, const std::string& name, int taps, int inputs, int outputs);
    std::vector<ResidualBlock> residual_blocks(const Find& find, const std::string& name, int count);
    template <class Work>
    void each(const Batch& batch, bool keeps_all, const Work& work) const;
    void check(const Batch& batch, const int64_t* tokens) const;

    TokenizerModel packed;
    std::vector<ResidualBlock> encoder, decoder, decoder_back;
    Room room;
};

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
