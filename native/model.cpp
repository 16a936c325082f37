// Models: from arrays as PyTorch has them to the layout that the kernels read.

#include <algorithm>

#include "engine.hpp"

namespace bisquit {
namespace {

void check(const Shape& shape, double epsilon, bool is_int8) {
    require_within("width", shape.width, 16384);
    require_within("n_layers", shape.n_layers, 512);
    require_within("n_heads", shape.n_heads, shape.width);
    require_within("feed_forward", shape.feed_forward, 65536);
    require_within("codebook", shape.codebook, 1 << 18);
    require_within("length", shape.length, is_int8 ? 32767 : 1 << 20);
    require_within("neighbours", shape.neighbours, 64, 0);
    require(shape.width % shape.n_heads == 0, "n_heads is " + std::to_string(shape.n_heads) +
                                                  ": it must divide the width " + std::to_string(shape.width));
    require(epsilon > 0 && epsilon < 1, "epsilon must be between 0 and 1");
    require(shape.score_unit > 0 && shape.score_unit < 2, "score_unit must be between 0 and 2");
}

}  // namespace

void check_around(const Shape& shape, const int32_t* around) {
    for (int step = 0; step < shape.length; ++step)
        for (int n = 0; n < shape.neighbours; ++n) {
            const int32_t at = around[size_t(step) * shape.neighbours + n];
            require((0 <= at && at < step) || at == shape.length,
                    "around holds " + std::to_string(at) + " at step " + std::to_string(step) +
                        ": it must be a step before it, or " + std::to_string(shape.length) + " where there is none");
        }
}

// Finds a model's arrays, checks them, and lays them out in the model's memory.
class Packer {
  public:
    Packer(PackedModel& to, const Find& find) : to(to), shape(to.packed.shape), find(find) {}

    // Rows of `shape`, each padded to `stride`.
    const float* padded(const std::string& name, std::vector<size_t> shape, int stride);
    // For each step the steps of its neighbours, which are before it, or `length` where there is none.
    const int32_t* around(const std::string& name);
    Norm norm(const std::string& name, double epsilon);
    // `heads_in`: the inputs are heads, which lie apart. `parts`: the outputs are as many times all heads.
    Matrix matrix(const std::string& name, int inputs, int outputs, bool heads_in = false, int parts = 0);

  private:
    PackedModel& to;
    const Shape& shape;
    const Find& find;
};

PackedModel::PackedModel(bool is_int8, const Shape& shape, double epsilon, const Find& find) : is_int8(is_int8) {
    check(shape, epsilon, is_int8);
    packed.shape = shape;
    Packer packer(*this, find);
    const size_t width = shape.width, half = shape.head_width() / 2;
    const int stride = shape.width_stride();
    packed.embedding = packer.padded("embedding", {size_t(shape.codebook), width}, stride);
    packed.start = packer.padded("start_vector", {width}, stride);
    if (shape.neighbours) {
        const size_t codes = size_t(shape.codebook) + 1;
        packed.neighbours = packer.padded("neighbours", {size_t(shape.neighbours), codes, width}, stride);
        packed.way.around = packer.around("around");
    }
    packed.way.place = packer.padded("place", {size_t(shape.length), width}, stride);
    if (find("turn")) {
        require(half > 0, "turn needs heads of at least two channels");
        packed.cosine = packer.padded("turn", {2, size_t(shape.length), half}, half);
        packed.sine = packed.cosine + size_t(shape.length) * half;
    }
    for (int i = 0; i < shape.n_layers; ++i) {
        const std::string name = "blocks." + std::to_string(i) + ".";
        blocks.push_back({
            packer.norm(name + "attention_norm", epsilon),
            packer.matrix(name + "qkv", shape.width, 3 * shape.width, false, 3),
            packer.matrix(name + "out", shape.width, shape.width, true),
            packer.norm(name + "mlp_norm", epsilon),
            packer.matrix(name + "up", shape.width, shape.feed_forward),
            packer.matrix(name + "down", shape.feed_forward, shape.width),
        });
    }
    packed.blocks = blocks.data();
    packed.norm = packer.norm("norm", epsilon);
    packed.head = packer.matrix("head", shape.width, shape.codebook);
}

const float* Packer::padded(const std::string& name, std::vector<size_t> shape, int stride) {
    const float* from = floats(find, name, shape);
    const size_t columns = shape.back(), rows = product(shape) / columns;
    float* out = to.room.floats.emplace_back(rows * stride).data();
    for (size_t row = 0; row < rows; ++row) std::copy_n(from + row * columns, columns, out + row * stride);
    return out;
}

const int32_t* Packer::around(const std::string& name) {
    const int length = shape.length, neighbours = shape.neighbours;
    const int32_t* from = fetch(find, name, {size_t(length), size_t(neighbours)}).integers;
    require(from != nullptr, name + " must be int32");
    check_around(shape, from);
    int32_t* out = to.room.integers.emplace_back(size_t(length) * neighbours).data();
    std::copy_n(from, size_t(length) * neighbours, out);
    return out;
}

Norm Packer::norm(const std::string& name, double epsilon) {
    const size_t width = shape.width;
    const int stride = shape.width_stride();
    return {padded(name + ".weight", {width}, stride), padded(name + ".bias", {width}, stride), epsilon};
}

Matrix Packer::matrix(const std::string& name, int inputs, int outputs, bool heads_in, int parts) {
    const int width = shape.width, head = shape.head_width();
    // Where input or output i lies, once heads are apart.
    const auto place = [&](int i) {
        return i / width * shape.heads_stride() + i % width / head * shape.head_stride() + i % head;
    };
    const bool is_int8 = to.is_int8;
    Matrix out;
    out.inputs = heads_in ? shape.heads_stride() : round_up(inputs, PANEL);
    out.outputs = parts ? parts * shape.heads_stride() : round_up(outputs, PANEL);

    const std::vector<size_t> rows_columns{size_t(outputs), size_t(inputs)};
    const float* from_bias = floats(find, name + ".bias", {size_t(outputs)});
    const int8_t* from_codes = is_int8 ? codes(find, name + ".codes", rows_columns) : nullptr;
    const float* from_weights = is_int8 ? nullptr : floats(find, name + ".weight", rows_columns);
    const float* from_step = is_int8 ? floats(find, name + ".step", {size_t(outputs), 1}) : nullptr;
    float* packed_bias = to.room.floats.emplace_back(out.outputs).data();
    out.bias = packed_bias;
    const size_t count = size_t(out.inputs) * out.outputs;
    float *weights = nullptr, *packed_step = nullptr;
    int8_t* packed_codes = nullptr;
    int32_t* correction = nullptr;
    if (is_int8) {
        out.codes = packed_codes = to.room.bytes.emplace_back(count).data();
        out.correction = correction = to.room.integers.emplace_back(out.outputs).data();
        out.step = packed_step = to.room.floats.emplace_back(out.outputs).data();
    } else {
        out.weights = weights = to.room.floats.emplace_back(count).data();
    }
    for (int n = 0; n < outputs; ++n) {
        const int column = parts ? place(n) : n;
        packed_bias[column] = from_bias[n];
        if (is_int8) packed_step[column] = from_step[n];
        const size_t panel = size_t(column / PANEL) * out.inputs * PANEL, lane = column % PANEL;
        for (int k = 0; k < inputs; ++k) {
            const size_t row = heads_in ? place(k) : k, from = size_t(n) * inputs + k;
            if (is_int8) {
                packed_codes[panel + row / 4 * 4 * PANEL + lane * 4 + row % 4] = from_codes[from];
                correction[column] -= OFFSET * from_codes[from];
            } else {
                weights[panel + row * PANEL + lane] = from_weights[from];
            }
        }
    }
    return out;
}

}  // namespace bisquit
