// A tokenizer in integers, picture by picture. Built once for each kind of processor, without fused products: it gives
// the bits of src/bisquit/engine/integer_tokenizer.py, whose operations it does in that module's order.

#include "codes.hpp"
#include "functions.hpp"
#include "tile.hpp"
#include "tokenizer.hpp"

namespace bisquit::VARIANT {
namespace {

class Pictures {
  public:
    Pictures(const TokenizerModel& model, const Canvas& canvas)
        : model(model), shape(model.shape), canvas(canvas), stride(shape.stride()) {}

    void project(const uint8_t* frame, float* projected) {
        each_value(canvas.x, model.stem.inputs, [&](size_t at, float) {
            return static_cast<float>(2 * frame[at] - 255) * static_cast<float>(1.0 / 510.0);
        });
        to_codes_of(canvas.x, model.stem.inputs);
        convolve(model.stem, [&](int cell, int column, F y) { store(at(canvas.x, cell) + column, y); });
        for (int i = 0; i < shape.encoder_blocks; ++i) add(model.encoder[i], canvas.x, canvas.hidden);
        to_codes_of(canvas.x, model.down.inputs);
        convolve(model.down, [&](int cell, int column, F y) { store(at(canvas.hidden, cell) + column, y); });
        give(projected);
    }

    void decode(const int8_t* vectors, uint8_t* frame) {
        start(vectors);
        for (int i = 0; i < shape.decoder_blocks; ++i) add(model.decoder[i], canvas.x, canvas.hidden);
        to_pixels();
        for (int y = 0; y < canvas.height; ++y)
            for (int x = 0; x < canvas.width; ++x)
                for (int channel = 0; channel < 3; ++channel)
                    frame[(size_t(y) * canvas.width + x) * 3 + channel] =
                        static_cast<uint8_t>((level(y, x, channel) + ROUNDING) - ROUNDING);
    }

    void slopes(const int8_t* vectors, const uint8_t* frame, float* slopes) {
        const size_t floats = size_t(canvas.cells()) * stride;
        start(vectors);
        for (int i = 0; i < shape.decoder_blocks; ++i) {
            float* seen = canvas.seen + 2 * i * floats;
            __builtin_memcpy(seen, canvas.x, floats * sizeof(float));
            add(model.decoder[i], canvas.x, seen + floats);
        }
        to_pixels();
        each_value(canvas.x, model.last_back.inputs,
                   [&](size_t at, float level) { return level - static_cast<float>(frame[at]); });
        to_codes_of(canvas.x, model.last_back.inputs);
        convolve(model.last_back, [&](int cell, int column, F y) { store(at(canvas.x, cell) + column, y); });
        for (int i = shape.decoder_blocks - 1; i >= 0; --i) {
            const float *x = canvas.seen + 2 * i * floats, *hidden = x + floats;
            const ResidualBlock& block = model.decoder_back[i];
            to_codes_of(canvas.x, block.second.inputs);
            convolve(block.second, [&](int cell, int column, F y) {
                store(at(canvas.hidden, cell) + column, y * gelu_slope(load(at(hidden, cell) + column)));
            });
            to_codes_of(canvas.hidden, block.first.inputs);
            convolve(block.first, [&](int cell, int column, F y) {
                float* slope = at(canvas.x, cell) + column;
                store(slope, load(slope) + y * gelu_slope(load(at(x, cell) + column)));
            });
        }
        to_codes_of(canvas.x, model.up_back.inputs);
        convolve(model.up_back, [&](int cell, int column, F y) { store(at(canvas.hidden, cell) + column, y); });
        give(slopes);
    }

  private:
    float* at(float* floats, int cell) const { return floats + size_t(cell) * stride; }
    const float* at(const float* floats, int cell) const { return floats + size_t(cell) * stride; }
    // Where a cell lies among those with a border.
    int bordered(int cell) const {
        return (cell / canvas.columns + 1) * (canvas.columns + 2) + cell % canvas.columns + 1;
    }

    // Copy what `hidden` holds of each channel of the codebook.
    void give(float* values) const {
        for (int cell = 0; cell < canvas.cells(); ++cell)
            __builtin_memcpy(values + size_t(cell) * shape.channels, at(canvas.hidden, cell),
                             shape.channels * sizeof(float));
    }

    // x = what the decoder takes of what tokens stand for.
    void start(const int8_t* vectors) {
        for (int cell = 0; cell < canvas.cells(); ++cell) {
            const int8_t* vector = vectors + size_t(cell) * shape.channels;
            uint8_t* codes = canvas.codes + size_t(bordered(cell)) * stride;
            for (int i = 0; i < model.up.inputs; ++i)
                codes[i] = static_cast<uint8_t>(OFFSET + (i < shape.channels ? vector[i] : 0));
            canvas.code_step[bordered(cell)] = model.code_step;
        }
        convolve(model.up, [&](int cell, int column, F y) { store(at(canvas.x, cell) + column, y); });
    }

    // x += second(gelu(first(gelu(x)))), and hidden is what lies between.
    void add(const ResidualBlock& block, float* x, float* hidden) {
        to_codes_of<true>(x, block.first.inputs);
        convolve(block.first, [&](int cell, int column, F y) { store(at(hidden, cell) + column, y); });
        to_codes_of<true>(hidden, block.second.inputs);
        convolve(block.second, [&](int cell, int column, F y) {
            float* sum = at(x, cell) + column;
            store(sum, load(sum) + y);
        });
    }

    // x = the levels of pixels, between 0 and 255, before they are rounded: [rows columns][3][patch_size][patch_size].
    void to_pixels() {
        to_codes_of(canvas.x, model.last.inputs);
        convolve(model.last, [&](int cell, int column, F y) {
            const F level = (y + 0.5f) * 255.0f;
            store(at(canvas.x, cell) + column, smaller(larger(level, fill(0.0f)), fill(255.0f)));
        });
    }

    float level(int y, int x, int channel) const {
        const int p = shape.patch_size, cell = y / p * canvas.columns + x / p;
        return at(canvas.x, cell)[(channel * p + y % p) * p + x % p];
    }

    // Set each value of each patch to what `of` makes of its place in a frame, edges repeated, and of the value; zeros
    // beyond, up to `inputs`.
    template <class Of>
    void each_value(float* floats, int inputs, const Of& of) {
        const int p = shape.patch_size;
        for (int cell = 0; cell < canvas.cells(); ++cell) {
            float* value = at(floats, cell);
            for (int channel = 0; channel < 3; ++channel)
                for (int i = 0; i < p; ++i)
                    for (int j = 0; j < p; ++j, ++value) {
                        const int down = cell / canvas.columns * p + i, right = cell % canvas.columns * p + j;
                        const int y = down < canvas.height ? down : canvas.height - 1;
                        const int x = right < canvas.width ? right : canvas.width - 1;
                        *value = of((size_t(y) * canvas.width + x) * 3 + channel, *value);
                    }
            for (float* end = at(floats, cell) + inputs; value < end; ++value) *value = 0;
        }
    }

    // Round each cell of `floats`, or its gelu, to codes.
    template <bool HAS_GELU = false>
    void to_codes_of(const float* floats, int inputs) {
        for (int cell = 0; cell < canvas.cells(); ++cell) {
            const float* x = at(floats, cell);
            alignas(64) float row[LARGEST_STRIDE];
            I most = I{};
            for (int i = 0; i < inputs; i += LANES) {
                const F value = HAS_GELU ? gelu(load(x + i)) : load(x + i);
                most = larger_magnitude(value, most);
                store(row + i, value);
            }
            const int place = bordered(cell);
            canvas.code_step[place] =
                to_codes(row, inputs, largest_magnitude(most), 127, OFFSET, canvas.codes + size_t(place) * stride);
        }
    }

    template <class Finish>
    void convolve(const Convolution& convolution, const Finish& finish) {
        for (int panel = 0; panel < convolution.outputs / PANEL; ++panel)
            for (int row = 0; row < canvas.rows; ++row)
                for (int column = 0; column < canvas.columns;)
                    column += tile<TILE_ROWS>(convolution, panel, row * canvas.columns + column,
                                              canvas.columns - column, finish);
    }

    // Compute a panel of as many cells of a row as there are left, at most CELLS, and return how many. A tap's sums are
    // of integers; they are scaled by the step of the cell that they come from and added, tap after tap.
    template <int CELLS, class Finish>
    int tile(const Convolution& convolution, int panel, int cell, int left, const Finish& finish) {
        if constexpr (CELLS > 1)
            if (left < CELLS) return tile<CELLS - 1>(convolution, panel, cell, left, finish);
        const int inputs = convolution.inputs, taps = convolution.taps;
        F totals[CELLS][PANEL_VECTORS] = {};
        for (int tap = 0; tap < taps; ++tap) {
            const int from = bordered(cell) + (taps == 1 ? 0 : (tap / 3 - 1) * (canvas.columns + 2) + tap % 3 - 1);
            const uint8_t* x = canvas.codes + size_t(from) * stride;
            const int8_t* codes = convolution.codes + (size_t(panel) * taps + tap) * inputs * PANEL;
            I sums[CELLS][PANEL_VECTORS] = {};
            for (int k = 0; k < inputs; k += 4)
#pragma GCC unroll 8
                for (int v = 0; v < PANEL_VECTORS; ++v) {
                    const I weight = load_bytes(codes + size_t(k) * PANEL + v * VECTOR_BYTES);
#pragma GCC unroll 8
                    for (int c = 0; c < CELLS; ++c)
                        sums[c][v] = dot4(sums[c][v], fill_bytes(x + size_t(c) * stride + k), weight);
                }
            const int32_t* correction = convolution.correction + size_t(tap) * convolution.outputs + panel * PANEL;
#pragma GCC unroll 8
            for (int c = 0; c < CELLS; ++c)
#pragma GCC unroll 8
                for (int v = 0; v < PANEL_VECTORS; ++v)
                    totals[c][v] += to_float(sums[c][v] + load(correction + v * LANES)) * canvas.code_step[from + c];
        }
#pragma GCC unroll 8
        for (int c = 0; c < CELLS; ++c)
#pragma GCC unroll 8
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const int column = panel * PANEL + v * LANES;
                finish(cell + c, column,
                       totals[c][v] * load(convolution.step + column) + load(convolution.bias + column));
            }
        return CELLS;
    }

    const TokenizerModel& model;
    const TokenizerShape& shape;
    const Canvas& canvas;
    const int stride;
};

}  // namespace

void project_picture(const TokenizerModel& model, const Canvas& canvas, const uint8_t* frame, float* projected) {
    Pictures(model, canvas).project(frame, projected);
}

void decode_picture(const TokenizerModel& model, const Canvas& canvas, const int8_t* vectors, uint8_t* frame) {
    Pictures(model, canvas).decode(vectors, frame);
}

void slopes_of_picture(const TokenizerModel& model, const Canvas& canvas, const int8_t* vectors, const uint8_t* frame,
                       float* slopes) {
    Pictures(model, canvas).slopes(vectors, frame, slopes);
}

}  // namespace bisquit::VARIANT
