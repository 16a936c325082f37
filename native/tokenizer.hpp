// A tokenizer in integers as its kernels see it: plain structures of pointers, which tokenizer.cpp owns.

#pragma once

#include <cstddef>
#include <cstdint>

#include "model.hpp"

namespace bisquit {

// A convolution, 1 x 1 or 3 x 3, of a grid of cells. Columns are padded to whole panels, with zeros.
struct Convolution {
    int taps = 0;  // 1 or 9
    int inputs = 0;
    int outputs = 0;
    const int8_t* codes = nullptr;        // [outputs / PANEL][taps][inputs / 4][PANEL][4]
    const int32_t* correction = nullptr;  // [taps][outputs], what the inputs' offset of 128 adds, negated
    const float* step = nullptr;          // [outputs]
    const float* bias = nullptr;          // [outputs]
};

// x + second(gelu(first(gelu(x)))).
struct ResidualBlock {
    Convolution first, second;
};

constexpr int LARGEST_STRIDE = 16384;

struct TokenizerShape {
    int patch_size;
    int width;
    int channels;  // of what tokens stand for
    int encoder_blocks;
    int decoder_blocks;

    constexpr int values() const { return 3 * patch_size * patch_size; }  // of a patch
    // Of the floats and the codes of a cell: at most LARGEST_STRIDE.
    constexpr int stride() const {
        const int wide = values() > width ? values() : width;
        return round_up(wide > channels ? wide : channels, PANEL);
    }
};

struct TokenizerModel {
    TokenizerShape shape;
    Convolution stem, down, up, last;
    Convolution up_back, last_back;  // from slopes of their outputs to those of their inputs
    float code_step = 0;             // of what tokens stand for
    const ResidualBlock* encoder = nullptr;
    const ResidualBlock* decoder = nullptr;
    const ResidualBlock* decoder_back = nullptr;
};

// What one thread needs to work on one picture after another, all of a size.
struct Canvas {
    int height, width;  // in pixels
    int rows, columns;  // of the grid; a patch that is begun counts
    float* x;           // [rows columns][stride]
    float* hidden;      // [rows columns][stride]
    float* seen;        // [decoder_blocks][2][rows columns][stride], x and hidden of each block; for slopes
    uint8_t* codes;     // [rows + 2][columns + 2][stride], with a border of zeros
    float* code_step;   // [rows + 2][columns + 2]

    constexpr int cells() const { return rows * columns; }
    constexpr int bordered_cells() const { return (rows + 2) * (columns + 2); }
};

// frame: [height][width][3]. vectors: [rows columns][channels], of steps, what tokens stand for. projected, what tokens
// are decided by, and slopes: the same.
struct TokenizerKernels {
    void (*project)(const TokenizerModel&, const Canvas&, const uint8_t* frame, float* projected);
    void (*decode)(const TokenizerModel&, const Canvas&, const int8_t* vectors, uint8_t* frame);
    void (*slopes)(const TokenizerModel&, const Canvas&, const int8_t* vectors, const uint8_t* frame, float* slopes);
};

}  // namespace bisquit
