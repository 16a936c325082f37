// What a decoder works on: a packed model, the pictures of a group, and what is asked of them. Plain structures of
// pointers, owned by model.cpp and workspace.cpp, so that kernels built for different processors can share them.

#pragma once

#include <cstddef>
#include <cstdint>

namespace bisquit {

constexpr int PANEL = 32;  // columns of a matrix that lie side by side: a whole number of vectors on every processor
constexpr int BLOCK = 16;  // steps of keys, or channels of values, that lie side by side

constexpr int OFFSET = 128;  // int8: makes a signed code an unsigned byte, as one side of a product of bytes must be

constexpr int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// y = x W + b. Columns are padded to whole panels, with zeros.
struct Matrix {
    int inputs = 0;
    int outputs = 0;
    const float* weights = nullptr;       // float32: [outputs / PANEL][inputs][PANEL]
    const int8_t* codes = nullptr;        // int8: [outputs / PANEL][inputs / 4][PANEL][4]
    const int32_t* correction = nullptr;  // int8: [outputs], what the inputs' offset of 128 adds, negated
    const float* step = nullptr;          // int8: [outputs]
    const float* bias = nullptr;          // [outputs]
};

struct Norm {
    const float* weight = nullptr;
    const float* bias = nullptr;
    double epsilon = 0;
};

struct Block {
    Norm attention_norm;
    Matrix qkv;  // columns: q of every head, k of every head, v of every head, each head padded to head_stride
    Matrix out;
    Norm mlp_norm;
    Matrix up;
    Matrix down;
};

struct Shape {
    int width;
    int n_layers;
    int n_heads;
    int feed_forward;
    int codebook;
    int length;
    int neighbours;    // tokens that a step's input takes beside the last
    float score_unit;  // log2(e) / sqrt(head_width)

    constexpr int head_width() const { return width / n_heads; }
    constexpr int head_stride() const { return round_up(head_width(), PANEL); }
    constexpr int heads_stride() const { return n_heads * head_stride(); }
    constexpr int width_stride() const { return round_up(width, PANEL); }
    constexpr int hidden_stride() const { return round_up(feed_forward, PANEL); }
    constexpr int codebook_stride() const { return round_up(codebook, PANEL); }
    constexpr int length_stride() const { return round_up(length, BLOCK); }
    constexpr int widest() const {
        const int wide = width_stride() > heads_stride() ? width_stride() : heads_stride();
        return wide > hidden_stride() ? wide : hidden_stride();
    }
    // Values a head keeps for each step, keys and values apart.
    constexpr int key_channels() const { return round_up(head_width(), 4); }
    constexpr int value_channels() const { return round_up(head_width(), BLOCK); }
};

// How a picture goes from step to step.
struct Way {
    const int32_t* around = nullptr;  // [length][neighbours], steps before each step, or `length` where there is none
    const float* place = nullptr;     // [length][width_stride], what is added to each step's input
};

struct Model {
    Shape shape;
    const float* embedding = nullptr;   // [codebook][width_stride]
    const float* start = nullptr;       // [width_stride]
    const float* neighbours = nullptr;  // [neighbours][codebook + 1][width_stride], the last row where there is none
    Way way;
    const float* cosine = nullptr;  // [length][head_width / 2], null without rotary positions
    const float* sine = nullptr;
    const Block* blocks = nullptr;
    Norm norm;
    Matrix head;
};

// Keys and values of one head of one layer of one picture. T steps are stored in whole blocks:
//   keys    [T / BLOCK][channels][BLOCK] float32, [T / BLOCK][channels / 4][BLOCK][4] uint8 with an offset of 128
//   values  [channels / BLOCK][T][BLOCK] float32, [channels / BLOCK][T / 4][BLOCK][4] int8
struct Memory {
    void* keys;
    void* values;
    float* key_step;  // int8: [T]
    float* value_step;
};

// The Mersenne twister that PyTorch's CPU generator is: Matsumoto and Nishimura 1998.
constexpr int TWISTER_WORDS = 624;
struct Twister {
    uint32_t state[TWISTER_WORDS];
    int used;
};

struct Picture {
    int64_t* tokens;       // [length]
    const uint8_t* known;  // [length], not zero where the token is given; null: none is
    Twister* twister;      // null: nothing is drawn
    const Memory* memory;  // [n_layers][n_heads]
    Way way;
    bool is_in_doubt;  // whether the last race was too close for float32
};

// What one thread of a team needs for itself.
struct Scratch {
    float* normed;      // [rows][widest]
    uint8_t* codes;     // [rows][widest]
    float* code_step;   // [rows]
    int32_t* integers;  // [widest]
    float* scores;      // [length_stride]
    uint8_t* bytes;     // [max(widest, length_stride)]
    float* race;        // [3 codebook_stride]
};

// Tokens that are decoded side by side: one of each of several pictures, or, where it reads, several of one picture,
// each after the one before.
struct Group {
    int rows;
    bool reads;
    int step;  // tokens done
    bool is_finite;
    bool is_stopped;       // a chooser would not go on
    const float* scales;   // [length], of guidance: each odd row is the guide of the one before; null: there are none
    Picture* pictures;     // [rows]; one, where it reads
    float* x;              // [rows][width_stride]
    float* qkv;            // [rows][3 heads_stride]
    float* mixed;          // [rows][heads_stride]
    float* hidden;         // [rows][hidden_stride]
    float* logits;         // [rows][codebook_stride]
    uint32_t* words;       // [rows][2 codebook], the random words of the last race: a uniform number is made of two
    int64_t* chosen;       // [rows]
    int32_t* frequencies;  // [rows][codebook_stride]
    Scratch* scratch;      // [team]
};

// The race for the next token: bisquit.sampling.race. Nothing is drawn where `temperature` is 0.
struct Race {
    float temperature;
    int top_k;
    float top_p;
    float min_p;
    float doubt;
};

// What is found of the tokens of a picture that is read, each under the logits that those before it lead to; null where
// it is not asked for.
struct Reading {
    float* logits;       // [length][codebook]
    float* bits;         // [length], -log2 of the token's chance
    int64_t* intervals;  // [length][2]: what the frequencies of the codes before the token sum to, and its own
};

// Someone outside who chooses the tokens of a group at a step by their frequencies, writes them to its pictures, and
// returns whether to go on.
struct Chooser {
    bool (*choose)(void* context, Group&, int step);
    void* context;
};

// What is asked of a group: to go on until a step, and to paint, to have the tokens chosen if there is a chooser, or
// else to take them as given.
struct Task {
    int until;
    bool paints;
    Race race;
    const Chooser* chooser;
};

// A meeting point of the threads of a team. Where a machine is shared, a thread may have lost its processor: the others
// then wait for milliseconds, and say so, for the team to give up.
struct Barrier {
    int size;
    alignas(64) int waiting = 0;
    alignas(64) int phase = 0;
    bool is_late = false;   // someone has waited for long
    bool was_late = false;  // ... before the last meeting: the same for all until the next
};

// Decodes a group as thread `rank` of a team, until the task is done, a race is in doubt, logits are not finite, the
// chooser would not go on or the team is late.
using Decode = void (*)(const Model&, Group&, const Task&, Barrier&, int rank);

// Reads a picture whose tokens are known, in a group of its own, as thread `rank` of a team, while logits are finite.
using Read = void (*)(const Model&, Group&, const Reading&, Barrier&, int rank);

// What is built for each kind of processor and precision.
struct DecoderKernels {
    Decode decode;
    Read read;
};

}  // namespace bisquit
