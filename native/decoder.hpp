// One step of the transformer, and the loop over steps, for a group of pictures and a team of threads. What float32 and
// int8 do differently is in `Precision`: norms, linear maps, and attention over what a head remembers.
//
// A team shares the columns of every map and the heads among its threads, and meets after each; a thread that is a team
// of its own never waits. Pictures whose tokens are known are read many tokens at a time, each of which finds in the
// memory what those before it have left there.

#pragma once

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

#include "frequencies.hpp"
#include "race.hpp"
#include "tile.hpp"

namespace bisquit::VARIANT {

constexpr int PATIENT_SPINS = 20000;  // some hundred microseconds

// Wait until all of the team are here; spin first, for the others are at most microseconds away. is_timed: whether one
// who keeps the others waiting has lost its processor, and not only someone to ask.
inline void meet(Barrier& barrier, bool is_timed = true) {
    if (barrier.size == 1) return;
    const int phase = __atomic_load_n(&barrier.phase, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&barrier.waiting, 1, __ATOMIC_ACQ_REL) == barrier.size) {
        barrier.was_late = __atomic_load_n(&barrier.is_late, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier.waiting, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier.phase, phase + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&barrier.phase, __ATOMIC_ACQUIRE) == phase; ++spins) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
        if (spins < PATIENT_SPINS) continue;
        if (is_timed) __atomic_store_n(&barrier.is_late, true, __ATOMIC_RELAXED);
#if defined(__unix__) || defined(__APPLE__)
        sched_yield();
#endif
    }
}

struct Share {
    int begin, end;
};

INLINE Share share(int total, int rank, int size) { return {total * rank / size, total * (rank + 1) / size}; }

// Turn each pair of channels (c, c + half) of a head by the angle of its place: rotary positions.
inline void rotate(float* head, const float* cosine, const float* sine, int half) {
    for (int c = 0; c < half; ++c) {
        const float a = head[c], b = head[c + half];
        head[c] = a * cosine[c] - b * sine[c];
        head[c + half] = a * sine[c] + b * cosine[c];
    }
}

template <class Precision>
class Decoder {
  public:
    Decoder(const Model& model, Group& group, Barrier& barrier, int rank)
        : model(model),
          shape(model.shape),
          group(group),
          barrier(barrier),
          rank(rank),
          own(group.scratch[rank]),
          rows(group.rows) {}

    // Compute the logits of the token at a step, for every picture; of those from a step on, where the group reads.
    void compute(int step) {
        rows = group.reads && shape.length - step < group.rows ? shape.length - step : group.rows;
        embed(step);
        meet(barrier);
        for (int layer = 0; layer < shape.n_layers; ++layer) {
            const Block& block = model.blocks[layer];
            norm(block.attention_norm);
            attend(layer, step, block.qkv);
            meet(barrier);
            prepare(group.mixed, shape.heads_stride());
            add_to_x(block.out);
            meet(barrier);
            norm(block.mlp_norm);
            multiply(block.up, [&](int row, int column, F y) {
                store(group.hidden + size_t(row) * shape.hidden_stride() + column, gelu(y));
            });
            meet(barrier);
            prepare(group.hidden, shape.hidden_stride());
            add_to_x(block.down);
            meet(barrier);
        }
        norm(model.norm);
        multiply(model.head, [&](int row, int column, F y) {
            store(group.logits + size_t(row) * shape.codebook_stride() + column, y);
        });
        meet(barrier);
    }

    // Take the next token of every picture: the winner of its race, the one that is chosen, or the one that is given.
    void take(int step, const Task& task) {
        if (task.chooser) {
            choose(step, *task.chooser);
            return;
        }
        const int each = group.scales ? 2 : 1;  // a picture, and its guide
        const Share own_pictures = share(rows / each, rank, barrier.size);
        for (int row = own_pictures.begin * each; row < own_pictures.end * each; row += each) {
            Picture& picture = group.pictures[row];
            picture.is_in_doubt = false;
            check(row);
            Race contest = task.race;
            if (group.scales) {
                check(row + 1);
                contest.doubt *= guide(row, group.scales[step]);
            }
            uint32_t* words = group.words + size_t(row) * 2 * shape.codebook;
            if (picture.twister) draw(*picture.twister, words, 2 * shape.codebook);
            const bool is_given = !task.paints || (picture.known && picture.known[step]);
            if (!is_given) {
                const Outcome outcome =
                    race(logits_of(row), words, shape.codebook, shape.codebook_stride(), contest, own.race);
                picture.tokens[step] = outcome.token;
                picture.is_in_doubt = outcome.is_in_doubt;
            }
            if (group.scales) group.pictures[row + 1].tokens[step] = picture.tokens[step];
        }
    }

    // Write down what is asked for of the tokens that were computed last.
    void note(int step, const Reading& reading) {
        const Share own_rows = share(rows, rank, barrier.size);
        for (int row = own_rows.begin; row < own_rows.end; ++row) {
            const float* logits = logits_of(row);
            if (!check(row)) continue;
            const size_t at = step + row;
            const int token = static_cast<int>(group.pictures[0].tokens[at]);
            if (reading.logits)
                __builtin_memcpy(reading.logits + at * shape.codebook, logits, shape.codebook * sizeof(float));
            if (reading.bits) reading.bits[at] = bits(logits, token);
            if (reading.intervals) {
                const int32_t* const counted = frequencies_of(row);
                frequencies(logits, shape.codebook, frequencies_of(row));
                int64_t before = 0;
                for (int code = 0; code < token; ++code) before += counted[code];
                reading.intervals[2 * at] = before;
                reading.intervals[2 * at + 1] = counted[token];
            }
        }
    }

  private:
    void choose(int step, const Chooser& chooser) {
        const Share own_rows = share(rows, rank, barrier.size);
        for (int row = own_rows.begin; row < own_rows.end; ++row)
            if (check(row)) frequencies(logits_of(row), shape.codebook, frequencies_of(row));
        meet(barrier);
        if (rank == 0 && group.is_finite) group.is_stopped = !chooser.choose(chooser.context, group, step);
    }

    // Take the logits of a row from its guide's to its own and on, and return how much more they may be off then.
    float guide(int row, float scale) {
        float* logits = group.logits + size_t(row) * shape.codebook_stride();
        const float* from = logits_of(row + 1);
        for (int i = 0; i < shape.codebook_stride(); i += LANES)
            store(logits + i, load(from + i) + (load(logits + i) - load(from + i)) * scale);
        return __builtin_fabsf(scale) + __builtin_fabsf(scale - 1);
    }

    const Picture& picture_of(int row) const { return group.pictures[group.reads ? 0 : row]; }
    int step_of(int row, int first) const { return group.reads ? first + row : first; }
    const float* logits_of(int row) const { return group.logits + size_t(row) * shape.codebook_stride(); }
    int32_t* frequencies_of(int row) const { return group.frequencies + size_t(row) * shape.codebook_stride(); }

    // Whether the logits of a row are finite; where not, the group hears of it.
    bool check(int row) {
        const bool is_sound = is_finite(logits_of(row));
        if (!is_sound) __atomic_store_n(&group.is_finite, false, __ATOMIC_RELAXED);
        return is_sound;
    }

    // x = what stands before this step, what its neighbours add one after another, and its place.
    void embed(int first) {
        const Share columns = share(shape.width_stride() / LANES, rank, barrier.size);
        for (int row = 0; row < rows; ++row) {
            const int step = step_of(row, first);
            const int64_t* tokens = picture_of(row).tokens;
            const Way& way = picture_of(row).way;
            const int stride = shape.width_stride();
            const float* before = step == 0 ? model.start : model.embedding + size_t(tokens[step - 1]) * stride;
            const float* place = way.place + size_t(step) * stride;
            float* x = group.x + size_t(row) * stride;
            const auto set_x = [&](const float* a, const float* b) {
                for (int i = columns.begin * LANES; i < columns.end * LANES; i += LANES)
                    store(x + i, load(a + i) + load(b + i));
            };
            const float* sum = before;
            for (int n = 0; n < shape.neighbours; ++n, sum = x) set_x(sum, neighbour(tokens, way, step, n));
            set_x(sum, place);
        }
    }

    // What the n-th neighbour of a step adds to its input.
    const float* neighbour(const int64_t* tokens, const Way& way, int step, int n) const {
        const int at = way.around[size_t(step) * shape.neighbours + n];
        const size_t code = at == shape.length ? shape.codebook : tokens[at];
        return model.neighbours + (size_t(n) * (shape.codebook + 1) + code) * shape.width_stride();
    }

    void norm(const Norm& norm) {
        for (int row = 0; row < rows; ++row)
            Precision::norm(group.x + size_t(row) * shape.width_stride(), norm, shape.width, shape.width_stride(), own,
                            row, shape.widest());
    }

    void prepare(const float* x, int stride) {
        for (int row = 0; row < rows; ++row)
            Precision::prepare(x + size_t(row) * stride, stride, own, row, shape.widest());
    }

    // Multiply what was prepared by this thread's share of a matrix's columns.
    template <class Finish>
    void multiply(const Matrix& matrix, const Finish& finish) {
        const Share panels = share(matrix.outputs / PANEL, rank, barrier.size);
        for (int panel = panels.begin; panel < panels.end; ++panel) multiply_panel(matrix, panel, finish);
    }

    template <class Finish>
    void multiply_panel(const Matrix& matrix, int panel, const Finish& finish) {
        int row = 0;
        while (row < rows)
            row += Precision::template tile<TILE_ROWS>(matrix, panel, own, row, rows - row, shape.widest(), finish);
    }

    void add_to_x(const Matrix& matrix) {
        multiply(matrix, [&](int row, int column, F y) {
            float* x = group.x + size_t(row) * shape.width_stride() + column;
            store(x, load(x) + y);
        });
    }

    // For this thread's heads: queries, keys and values of the step, and what the queries find.
    void attend(int layer, int first_step, const Matrix& qkv) {
        const int stride = shape.heads_stride(), head_panels = shape.head_stride() / PANEL;
        const auto keep = [&](int row, int column, F y) { store(group.qkv + size_t(row) * 3 * stride + column, y); };
        const Share heads = share(shape.n_heads, rank, barrier.size);
        for (int part = 0; part < 3; ++part) {
            const int first = part * shape.n_heads * head_panels;
            for (int panel = heads.begin * head_panels; panel < heads.end * head_panels; ++panel)
                multiply_panel(qkv, first + panel, keep);
        }
        const int half = shape.head_width() / 2;
        for (int row = 0; row < rows; ++row) {
            const int step = step_of(row, first_step);
            for (int head = heads.begin; head < heads.end; ++head) {
                float* q = group.qkv + size_t(row) * 3 * stride + head * shape.head_stride();
                float *k = q + stride, *v = k + stride;
                if (model.cosine) {
                    const size_t place = size_t(step) * half;
                    rotate(q, model.cosine + place, model.sine + place, half);
                    rotate(k, model.cosine + place, model.sine + place, half);
                }
                const Memory& memory = picture_of(row).memory[layer * shape.n_heads + head];
                float* found = group.mixed + size_t(row) * stride + head * shape.head_stride();
                Precision::attend(q, k, v, memory, step, shape, own, found);
            }
        }
    }

    bool is_finite(const float* logits) const {
        I strange = I{};
        for (int i = 0; i < shape.codebook_stride(); i += LANES) strange |= ~(magnitude(load(logits + i)) < 3e38f);
        return sum(strange & 1) == 0;
    }

    // -log2 of a token's chance.
    float bits(const float* logits, int token) const {
        const float most = largest_of(logits, shape.codebook);
        double total = 0;
        for (int i = 0; i < shape.codebook_stride(); i += LANES) {
            const F chance = exp2((load(logits + i) - most) * LOG2_E);
            for (int lane = 0; lane < LANES; ++lane)
                if (i + lane < shape.codebook) total += chance[lane];
        }
        return (most - logits[token]) * LOG2_E + static_cast<float>(__builtin_log2(total));
    }

    const Model& model;
    const Shape& shape;
    Group& group;
    Barrier& barrier;
    const int rank;
    const Scratch& own;
    int rows;
};

template <class Precision>
void decode(const Model& model, Group& group, const Task& task, Barrier& barrier, int rank) {
    Decoder<Precision> decoder(model, group, barrier, rank);
    int step = group.step;
    for (bool goes_on = step < task.until; goes_on; ++step) {
        decoder.compute(step);
        decoder.take(step, task);
        meet(barrier, !task.chooser);
        goes_on = step + 1 < task.until && group.is_finite && !group.is_stopped && !barrier.was_late;
        for (int row = 0; row < group.rows; ++row) goes_on = goes_on && !group.pictures[row].is_in_doubt;
    }
    meet(barrier);
    if (rank == 0) group.step = step;
}

template <class Precision>
void read(const Model& model, Group& group, const Reading& reading, Barrier& barrier, int rank) {
    Decoder<Precision> decoder(model, group, barrier, rank);
    for (int step = 0; step < model.shape.length && group.is_finite; step += group.rows) {
        decoder.compute(step);
        decoder.note(step, reading);
        meet(barrier);
    }
}

}  // namespace bisquit::VARIANT
