// Models: from arrays as PyTorch has them to the layout that the kernels read.

#include <algorithm>
#include <cmath>

#include "engine.hpp"

namespace bisquit {
namespace {

std::string text(const std::vector<size_t>& shape) {
    std::string out = "(";
    for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
    return out + ")";
}

void check(const Shape& shape, double epsilon, bool is_int8) {
    const auto within = [](const char* name, int value, int most) {
        require(1 <= value && value <= most, std::string(name) + " is " + std::to_string(value) +
                                                 ": it must be between 1 and " + std::to_string(most));
    };
    within("width", shape.width, 16384);
    within("n_layers", shape.n_layers, 512);
    within("n_heads", shape.n_heads, shape.width);
    within("feed_forward", shape.feed_forward, 65536);
    within("codebook", shape.codebook, 1 << 18);
    within("length", shape.length, is_int8 ? 32767 : 1 << 20);
    require(shape.width % shape.n_heads == 0, "n_heads is " + std::to_string(shape.n_heads) +
                                                  ": it must divide the width " + std::to_string(shape.width));
    require(epsilon > 0 && epsilon < 1, "epsilon must be between 0 and 1");
    require(shape.score_unit > 0 && shape.score_unit < 2, "score_unit must be between 0 and 2");
}

}  // namespace

// Finds a model's arrays, checks them, and lays them out in the model's memory.
class Packer {
  public:
    Packer(PackedModel& to, const Find& find) : to(to), shape(to.packed.shape), find(find) {}

    // Rows of `shape`, each padded to `stride`.
    const float* padded(const std::string& name, std::vector<size_t> shape, int stride);
    Norm norm(const std::string& name, double epsilon);
    // `heads_in`: the inputs are heads, which lie apart. `parts`: the outputs are as many times all heads.
    Matrix matrix(const std::string& name, int inputs, int outputs, bool heads_in = false, int parts = 0);

  private:
    Array fetch(const std::string& name, const std::vector<size_t>& shape, bool codes = false) const;

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
    packed.place = packer.padded("place", {size_t(shape.length), width}, stride);
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

Array Packer::fetch(const std::string& name, const std::vector<size_t>& shape, bool codes) const {
    const std::optional<Array> array = find(name);
    require(array.has_value(), name + " is missing");
    require(array->shape == shape, name + " is " + text(array->shape) + ": it must be " + text(shape));
    require(codes ? array->codes != nullptr : array->floats != nullptr,
            name + (codes ? " must be int8" : " must be float32"));
    size_t count = 1;
    for (size_t n : shape) count *= n;
    if (codes)
        require(std::all_of(array->codes, array->codes + count, [](int8_t c) { return c >= -127; }),
                name + " holds -128: codes are between -127 and 127");
    else
        require(std::all_of(array->floats, array->floats + count, [](float x) { return std::isfinite(x); }),
                name + " holds a number that is not finite: the model is damaged, or its training diverged");
    return *array;
}

const float* Packer::padded(const std::string& name, std::vector<size_t> shape, int stride) {
    const Array array = fetch(name, shape);
    const size_t columns = shape.back();
    size_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    float* out = to.floats.emplace_back(rows * stride).data();
    for (size_t row = 0; row < rows; ++row) std::copy_n(array.floats + row * columns, columns, out + row * stride);
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

    const Array bias = fetch(name + ".bias", {size_t(outputs)});
    const Array array = is_int8 ? fetch(name + ".codes", {size_t(outputs), size_t(inputs)}, true)
                                : fetch(name + ".weight", {size_t(outputs), size_t(inputs)});
    const Array steps = is_int8 ? fetch(name + ".step", {size_t(outputs), 1}) : Array{};
    float* packed_bias = to.floats.emplace_back(out.outputs).data();
    out.bias = packed_bias;
    const size_t count = size_t(out.inputs) * out.outputs;
    float *weights = nullptr, *packed_step = nullptr;
    int8_t* codes = nullptr;
    int32_t* correction = nullptr;
    if (is_int8) {
        out.codes = codes = to.bytes.emplace_back(count).data();
        out.correction = correction = to.integers.emplace_back(out.outputs).data();
        out.step = packed_step = to.floats.emplace_back(out.outputs).data();
    } else {
        out.weights = weights = to.floats.emplace_back(count).data();
    }
    for (int n = 0; n < outputs; ++n) {
        const int column = parts ? place(n) : n;
        packed_bias[column] = bias.floats[n];
        if (is_int8) packed_step[column] = steps.floats[n];
        const size_t panel = size_t(column / PANEL) * out.inputs * PANEL, lane = column % PANEL;
        for (int k = 0; k < inputs; ++k) {
            const size_t row = heads_in ? place(k) : k, from = size_t(n) * inputs + k;
            if (is_int8) {
                codes[panel + row / 4 * 4 * PANEL + lane * 4 + row % 4] = array.codes[from];
                correction[column] -= OFFSET * array.codes[from];
            } else {
                weights[panel + row * PANEL + lane] = array.floats[from];
            }
        }
    }
    return out;
}

}  // namespace bisquit
