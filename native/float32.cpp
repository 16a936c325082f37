// The decoder in float32. Built once for each kind of processor, with fused products.

#include "decoder.hpp"

namespace bisquit::VARIANT {

struct Float32 {
    static void norm(const float* x, const Norm& norm, int n, int stride, const Scratch& own, int row, int widest) {
        float* y = own.normed + size_t(row) * widest;
        F total = F{};
        for (int i = 0; i < stride; i += LANES) total += load(x + i);  // what is beyond n is zero
        const float mean = sum(total) / n;
        const I last = fill(n), lanes = lane_numbers();
        F squares = F{};
        for (int i = 0; i < stride; i += LANES) {
            const F off = lanes + i < last ? load(x + i) - mean : F{};
            squares += off * off;
        }
        const float variance = sum(squares) / n + static_cast<float>(norm.epsilon);
        const float scale = variance < 3e38f ? 1.0f / __builtin_sqrtf(variance) : __builtin_nanf("");
        for (int i = 0; i < stride; i += LANES)
            store(y + i, (load(x + i) - mean) * scale * load(norm.weight + i) + load(norm.bias + i));
    }

    static void prepare(const float* x, int n, const Scratch& own, int row, int widest) {
        float* y = own.normed + size_t(row) * widest;
        for (int i = 0; i < n; i += LANES) store(y + i, load(x + i));
    }

    // Multiply as many rows as there are left, at most ROWS, and return how many.
    template <int ROWS, class Finish>
    static int tile(const Matrix& matrix, int panel, const Scratch& own, int row, int left, int stride,
                    const Finish& finish) {
        if constexpr (ROWS > 1)
            if (left < ROWS) return tile<ROWS - 1>(matrix, panel, own, row, left, stride, finish);
        constexpr int SPLIT = side_by_side(ROWS * PANEL_VECTORS);
        const float* weights = matrix.weights + size_t(panel) * matrix.inputs * PANEL;
        const float* x = own.normed + size_t(row) * stride;
        F sums[SPLIT][ROWS][PANEL_VECTORS] = {};
        for (int k = 0; k < matrix.inputs; k += SPLIT)  // inputs are a multiple of 32
#pragma GCC unroll 4
            for (int s = 0; s < SPLIT; ++s)
#pragma GCC unroll 8
                for (int v = 0; v < PANEL_VECTORS; ++v) {
                    const F weight = load(weights + size_t(k + s) * PANEL + v * LANES);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; ++r) sums[s][r][v] += x[size_t(r) * stride + k + s] * weight;
                }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                F total = sums[0][r][v];
                for (int s = 1; s < SPLIT; ++s) total += sums[s][r][v];
                const int column = panel * PANEL + v * LANES;
                finish(row + r, column, total + load(matrix.bias + column));
            }
        return ROWS;
    }

    static void attend(const float* q, const float* k, const float* v, const Memory& memory, int step,
                       const Shape& shape, const Scratch& own, float* found) {
        const int width = shape.head_width(), steps = step + 1, channels = shape.key_channels();
        float *keys = static_cast<float*>(memory.keys), *values = static_cast<float*>(memory.values);
        float* key = keys + size_t(step / BLOCK) * channels * BLOCK + step % BLOCK;
        for (int c = 0; c < width; ++c) key[c * BLOCK] = k[c];
        const size_t chunk = size_t(shape.length_stride()) * BLOCK;
        for (int c = 0; c < width; ++c) values[c / BLOCK * chunk + size_t(step) * BLOCK + c % BLOCK] = v[c];

        float* scores = own.scores;
        const int blocks = round_up(steps, BLOCK) / BLOCK;
        int block = 0;
        for (; block + 4 <= blocks; block += 4) score<4>(q, keys, block, channels, shape, scores);
        for (; block < blocks; ++block) score<1>(q, keys, block, channels, shape, scores);
        for (int t = steps; t < blocks * BLOCK; ++t) scores[t] = NEVER;
        F most = fill(NEVER);
        for (int t = 0; t < steps; t += LANES) most = larger(load(scores + t), most);
        const float most_likely = largest(most), best = most_likely > NEVER ? most_likely : __builtin_nanf("");
        F total = F{};
        for (int t = 0; t < steps; t += LANES) {
            const F chance = exp2(load(scores + t) - best);
            store(scores + t, chance);
            total += chance;
        }
        const float one_by_total = 1.0f / sum(total);
        for (int c = 0; c < width; c += BLOCK) mix(scores, values + c / BLOCK * chunk, steps, one_by_total, found + c);
    }

    template <int BLOCKS>
    static void score(const float* q, const float* keys, int block, int channels, const Shape& shape, float* scores) {
        constexpr int VECTORS = BLOCKS * BLOCK_VECTORS;
        keys += size_t(block) * channels * BLOCK;
        F sums[VECTORS] = {};
        for (int c = 0; c < shape.head_width(); ++c)
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v)
                sums[v] +=
                    q[c] * load(keys + (size_t(v / BLOCK_VECTORS) * channels + c) * BLOCK + v % BLOCK_VECTORS * LANES);
        for (int v = 0; v < VECTORS; ++v) store(scores + block * BLOCK + v * LANES, sums[v] * shape.score_unit);
    }

    // found = the mean of BLOCK channels of the values, weighted by the chances.
    static void mix(const float* chances, const float* values, int steps, float scale, float* found) {
        constexpr int SPLIT = 8 / BLOCK_VECTORS < 1 ? 1 : 8 / BLOCK_VECTORS;
        F sums[SPLIT][BLOCK_VECTORS] = {};
        int t = 0;
        for (; t + SPLIT <= steps; t += SPLIT)
#pragma GCC unroll 8
            for (int s = 0; s < SPLIT; ++s)
#pragma GCC unroll 4
                for (int v = 0; v < BLOCK_VECTORS; ++v)
                    sums[s][v] += chances[t + s] * load(values + size_t(t + s) * BLOCK + v * LANES);
        for (; t < steps; ++t)
            for (int v = 0; v < BLOCK_VECTORS; ++v)
                sums[0][v] += chances[t] * load(values + size_t(t) * BLOCK + v * LANES);
        for (int v = 0; v < BLOCK_VECTORS; ++v) {
            F all = sums[0][v];
            for (int s = 1; s < SPLIT; ++s) all += sums[s][v];
            store(found + v * LANES, all * scale);
        }
    }
};

void decode_float32(const Model& model, Group& group, const Task& task, Barrier& barrier, int rank) {
    decode<Float32>(model, group, task, barrier, rank);
}

void read_float32(const Model& model, Group& group, const Reading& reading, Barrier& barrier, int rank) {
    read<Float32>(model, group, reading, barrier, rank);
}

}  // namespace bisquit::VARIANT
