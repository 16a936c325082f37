// The engine as the rest of the world sees it: models and tokenizers packed from plain arrays.

#pragma once

#include <string>
#include <vector>

#include "arrays.hpp"
#include "model.hpp"
#include "tokenizer.hpp"

namespace bisquit {

// Throws std::invalid_argument unless the neighbours of each step, [length][neighbours], are before it or none.
void check_around(const Shape& shape, const int32_t* around);

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
    DecoderKernels float32;
    DecoderKernels int8;
    TokenizerKernels tokenizer;

    const DecoderKernels& decoder(bool is_int8) const { return is_int8 ? int8 : float32; }
};

// The kernels that this processor can run, the fastest first.
std::vector<const Kernels*> usable_kernels();

// Those of a name, the fastest if it is empty. Throws std::invalid_argument if this processor cannot run them.
const Kernels& find_kernels(const std::string& name);

// A tokenizer packed for use: pictures to tokens and back, each by one thread, several at a time.
class PackedTokenizer {
  public:
    // Throws std::invalid_argument as `PackedModel` does.
    PackedTokenizer(const TokenizerShape& shape, float code_step, const Find& find);
    PackedTokenizer(const PackedTokenizer&) = delete;

    // A batch of pictures of one size, and how to work on it.
    struct Batch {
        int count, height, width, threads;
        const Kernels& kernels;
    };
    // frames: [count][height][width][3]. vectors, projected, slopes: [count][rows][columns][channels], of the grid.
    // Throw std::invalid_argument where a size of the batch is out of its range.
    void project(const Batch& batch, const uint8_t* frames, float* projected) const;
    void decode(const Batch& batch, const int8_t* vectors, uint8_t* frames) const;
    void slopes(const Batch& batch, const int8_t* vectors, const uint8_t* frames, float* slopes) const;

    const TokenizerShape& shape() const { return packed.shape; }
    int rows(int height) const { return (height + shape().patch_size - 1) / shape().patch_size; }
    int columns(int width) const { return rows(width); }

  private:
    Convolution convolution(const Find& find, const std::string& name, int taps, int inputs, int outputs);
    std::vector<ResidualBlock> residual_blocks(const Find& find, const std::string& name, int count);
    template <class Work>
    void each(const Batch& batch, bool keeps_all, const Work& work) const;
    // Of a picture.
    static size_t pixels(const Batch& batch) { return size_t(batch.height) * batch.width * 3; }
    size_t values(const Canvas& canvas) const { return size_t(canvas.cells()) * shape().channels; }

    TokenizerModel packed;
    std::vector<ResidualBlock> encoder, decoder, decoder_back;
    Room room;
};

}  // namespace bisquit
