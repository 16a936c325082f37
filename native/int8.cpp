// The decoder in int8. Built once for each kind of processor, without fused products: it gives the bits of
// src/bisquit/engine/arithmetic.py, whose operations it does in that module's order. Sums are of integers.

#include "codes.hpp"
#include "decoder.hpp"

namespace bisquit::VARIANT {

// Whether keys are asked for before their turn: measured to help where a vector is short, and not measured elsewhere.
constexpr bool FETCHES_AHEAD = LANES <= 8;

struct Int8 {
    static void norm(const float* x, const Norm& norm, int n, int stride, const Scratch& own, int row, int widest) {
        float* y = own.normed + size_t(row) * widest;
        const float scale = grid(largest_magnitude(x, stride));
        const F bound = fill(524288.0f);
        for (int i = 0; i < stride; i += LANES) {
            const F scaled = load(x + i) * scale;
            store(own.integers + i, nearest_integer(smaller(larger(scaled, -bound), bound)));
        }
        int64_t total = 0, squares = 0;
        for (int i = 0; i < stride; ++i) total += own.integers[i];
        for (int i = 0; i < stride; ++i) squares += static_cast<int64_t>(own.integers[i]) * own.integers[i];
        const double one_by_n = 1.0 / n;
        const double mean = static_cast<double>(total) * one_by_n;
        const double variance = static_cast<double>(squares) * one_by_n - mean * mean;
        const double floor = static_cast<double>(scale) * static_cast<double>(scale) * norm.epsilon;
        const double deviation = __builtin_sqrt((variance > 0 ? variance : 0) + floor);
        const float inverse = static_cast<float>(1.0 / deviation), middle = static_cast<float>(mean);
        for (int i = 0; i < stride; i += LANES)
            store(y + i, (load(x + i) * scale - middle) * inverse * load(norm.weight + i) + load(norm.bias + i));
        prepare(y, stride, own, row, widest);
    }

    // The power of two that takes magnitudes up to `top` below 2**19.
    static float grid(float top) {
        int32_t bits;
        __builtin_memcpy(&bits, &top, 4);
        int32_t exponent = (bits >> 23) & 0xff;
        exponent = exponent < 20 ? 20 : exponent > 253 ? 253 : exponent;
        bits = (18 + 254 - exponent) << 23;
        float scale;
        __builtin_memcpy(&scale, &bits, 4);
        return scale;
    }

    static void prepare(const float* x, int n, const Scratch& own, int row, int widest) {
        own.code_step[row] = to_codes(x, n, OFFSET, own.codes + size_t(row) * widest);
    }

    // Multiply as many rows as there are left, at most ROWS, and return how many.
    template <int ROWS, class Finish>
    static int tile(const Matrix& matrix, int panel, const Scratch& own, int row, int left, int stride,
                    const Finish& finish) {
        if constexpr (ROWS > 1)
            if (left < ROWS) return tile<ROWS - 1>(matrix, panel, own, row, left, stride, finish);
        constexpr int SPLIT = side_by_side(ROWS * PANEL_VECTORS);
        const int8_t* codes = matrix.codes + size_t(panel) * matrix.inputs * PANEL;
        const uint8_t* x = own.codes + size_t(row) * stride;
        I sums[SPLIT][ROWS][PANEL_VECTORS] = {};
        for (int k = 0; k < matrix.inputs; k += 4 * SPLIT)  // inputs are a multiple of 32
#pragma GCC unroll 4
            for (int s = 0; s < SPLIT; ++s)
#pragma GCC unroll 8
                for (int v = 0; v < PANEL_VECTORS; ++v) {
                    const I weight = load_bytes(codes + size_t(k + 4 * s) * PANEL + v * VECTOR_BYTES);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; ++r)
                        sums[s][r][v] = dot4(sums[s][r][v], fill_bytes(x + size_t(r) * stride + k + 4 * s), weight);
                }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const int column = panel * PANEL + v * LANES;
                I total = sums[0][r][v] + load(matrix.correction + column);
                for (int s = 1; s < SPLIT; ++s) total += sums[s][r][v];
                const F scale = own.code_step[row + r] * load(matrix.step + column);
                finish(row + r, column, to_float(total) * scale + load(matrix.bias + column));
            }
        return ROWS;
    }

    static void attend(const float* q, const float* k, const float* v, const Memory& memory, int step,
                       const Shape& shape, const Scratch& own, float* found) {
        const int stride = shape.head_stride(), channels = shape.key_channels();
        const int steps = step + 1, blocks = round_up(steps, BLOCK) / BLOCK, ends = blocks * BLOCK;
        float* scores = own.scores;
        uint8_t* codes = own.bytes;
        remember(k, v, memory, step, shape, codes);

        // Scores: a query's codes are signed, those of the keys have an offset, which is taken off again.
        int8_t* query = reinterpret_cast<int8_t*>(codes);
        const float unit = to_codes(q, stride, 0, query) * shape.score_unit;
        int32_t offset = 0;
        for (int c = 0; c < channels; ++c) offset -= OFFSET * query[c];
        int block = 0;
        for (; block + 4 <= blocks; block += 4) score<4>(query, offset, unit, memory, block, channels, scores);
        for (; block < blocks; ++block) score<1>(query, offset, unit, memory, block, channels, scores);
        for (int t = steps; t < ends; ++t) scores[t] = NEVER;
        F most = fill(NEVER);
        for (int t = 0; t < ends; t += LANES) most = larger(load(scores + t), most);

        // Chances: their sum in units of 2**-16; times the steps of the values, which are 0 beyond the last, as codes.
        const float best = largest(most);
        U total = U{};
        I heaviest = I{};
        for (int t = 0; t < ends; t += LANES) {
            const F chance = exp2(load(scores + t) - best);
            const F weight = chance * load(memory.value_step + t);
            total += reinterpret_cast<U>(nearest_integer(chance * 65536.0f));
            heaviest = larger_magnitude(weight, heaviest);
            store(scores + t, weight);
        }
        const float code_step = to_codes(scores, ends, largest_magnitude(heaviest), 255, 0, codes);
        const float scale = code_step * 65536.0f / static_cast<float>(sum(total));
        const size_t chunk = size_t(shape.length_stride()) * BLOCK;
        const int8_t* values = static_cast<const int8_t*>(memory.values);
        const int chunks = shape.value_channels() / BLOCK;
        int done = 0;
        for (; done + 2 <= chunks; done += 2)
            mix<2>(codes, values + done * chunk, chunk, ends, scale, found + done * BLOCK);
        for (; done < chunks; ++done) mix<1>(codes, values + done * chunk, chunk, ends, scale, found + done * BLOCK);
    }

    // Add a step's key and value, as codes, to what a head remembers.
    static void remember(const float* k, const float* v, const Memory& memory, int step, const Shape& shape,
                         uint8_t* codes) {
        const int width = shape.head_width(), stride = shape.head_stride(), channels = shape.key_channels();
        memory.key_step[step] = to_codes(k, stride, OFFSET, codes);
        uint8_t* key = static_cast<uint8_t*>(memory.keys) + size_t(step / BLOCK) * channels * BLOCK + step % BLOCK * 4;
        for (int c = 0; c < channels; c += 4) __builtin_memcpy(key + c * BLOCK, codes + c, 4);
        memory.value_step[step] = to_codes(v, stride, 0, codes);
        uint8_t* value = static_cast<uint8_t*>(memory.values) + size_t(step / 4) * 4 * BLOCK + step % 4;
        const size_t chunk = size_t(shape.length_stride()) * BLOCK;
        for (int c = 0; c < width; ++c) value[c / BLOCK * chunk + c % BLOCK * 4] = codes[c];
    }

    template <int BLOCKS>
    static void score(const int8_t* query, int32_t offset, float unit, const Memory& memory, int block, int channels,
                      float* scores) {
        constexpr int VECTORS = BLOCKS * BLOCK_VECTORS;
        const uint8_t* keys = static_cast<const uint8_t*>(memory.keys) + size_t(block) * channels * BLOCK;
        I sums[VECTORS];
        for (int v = 0; v < VECTORS; ++v) sums[v] = fill(offset);
        for (int c = 0; c < channels; c += 4) {
            if constexpr (FETCHES_AHEAD)
                for (int b = 0; b < BLOCKS; ++b)  // of the blocks that are next; beyond the last it does no harm
                    __builtin_prefetch(keys + (size_t(BLOCKS + b) * channels + c) * BLOCK);
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v)
                sums[v] = dot4(sums[v],
                               load_bytes(keys + (size_t(v / BLOCK_VECTORS) * channels + c) * BLOCK +
                                          v % BLOCK_VECTORS * VECTOR_BYTES),
                               fill_bytes(query + c));
        }
        for (int v = 0; v < VECTORS; ++v) {
            const int t = block * BLOCK + v * LANES;
            store(scores + t, to_float(sums[v]) * (unit * load(memory.key_step + t)));
        }
    }

    // found = the values of CHUNKS blocks of channels, weighted by the codes of the chances.
    template <int CHUNKS>
    static void mix(const uint8_t* codes, const int8_t* values, size_t chunk, int ends, float scale, float* found) {
        constexpr int VECTORS = CHUNKS * BLOCK_VECTORS, SPLIT = VECTORS >= 4 ? 2 : 4;  // no sum waits for the last
        I sums[SPLIT][VECTORS] = {};
        for (int t = 0; t < ends; t += 4 * SPLIT)
#pragma GCC unroll 4
            for (int s = 0; s < SPLIT; ++s)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v)
                    sums[s][v] = dot4(sums[s][v], fill_bytes(codes + t + 4 * s),
                                      load_bytes(values + v / BLOCK_VECTORS * chunk + size_t(t + 4 * s) * BLOCK +
                                                 v % BLOCK_VECTORS * VECTOR_BYTES));
        for (int v = 0; v < VECTORS; ++v) {
            I total = sums[0][v];
            for (int s = 1; s < SPLIT; ++s) total += sums[s][v];
            store(found + v * LANES, to_float(total) * scale);
        }
    }
};

void decode_int8(const Model& model, Group& group, const Task& task, Barrier& barrier, int rank) {
    decode<Int8>(model, group, task, barrier, rank);
}

void read_int8(const Model& model, Group& group, const Reading& reading, Barrier& barrier, int rank) {
    read<Int8>(model, group, reading, barrier, rank);
}

}  // namespace bisquit::VARIANT
