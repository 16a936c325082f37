// Sessions: the memory of pictures that are decoded together, and the threads that decode them.

#include "engine.hpp"
#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

namespace bisquit {
namespace {

constexpr size_t CACHED_BYTES = 8 << 20;  // of keys and values that a group may hold, to stay in a processor's cache
constexpr int MOST_ROWS = 8;              // of a group: as many as are multiplied at a time

// Until when the machine is taken to be busy with other work, so that teams would wait for one another.
using Clock = std::chrono::steady_clock;
constexpr auto BUSY = std::chrono::milliseconds(100);
std::atomic<Clock::time_point> busy_until{Clock::time_point::min()};

}  // namespace

Session::Session(const PackedModel& model, int batch, int threads, const std::string& kernels)
    : model(model),
      batch(batch),
      decode(model.is_int8 ? find_kernels(kernels).int8 : find_kernels(kernels).float32),
      threads(threads) {
    require(1 <= batch && batch <= 1 << 16, "batch is " + std::to_string(batch) + ": it must be between 1 and 65536");
    require(1 <= threads && threads <= 1024,
            "threads is " + std::to_string(threads) + ": it must be between 1 and 1024");
    const Shape& s = shape();
    const size_t values_a_head = size_t(s.length_stride()) * (s.key_channels() + s.value_channels());
    const size_t heads = size_t(s.n_layers) * s.n_heads;
    const size_t bytes_a_picture = heads * values_a_head * (model.is_int8 ? 1 : sizeof(float));
    team = batch < threads ? threads : 1;
    const int fitting = static_cast<int>(std::clamp<size_t>(CACHED_BYTES / bytes_a_picture, 1, MOST_ROWS));
    const int each = (batch + threads - 1) / threads;  // pictures for a thread
    const int count = team > 1 ? 1 : std::min(batch, threads * ((each + fitting - 1) / fitting));

    const auto floats = [&](size_t count) { return float_room.emplace_back(count).data(); };
    const auto bytes = [&](size_t count) { return byte_room.emplace_back(count).data(); };
    const size_t length = s.length;
    all_tokens = Buffer<int64_t>(batch * length);
    pictures.resize(batch);
    places.resize(batch);
    memory.resize(batch * heads);
    for (int i = 0; i < batch; ++i) {
        pictures[i] = {all_tokens.data() + i * length, nullptr, nullptr, nullptr, memory.data() + i * heads, false};
        uint8_t* room = bytes(bytes_a_picture);
        float* steps = model.is_int8 ? floats(heads * 2 * s.length_stride()) : nullptr;
        const size_t unit = model.is_int8 ? 1 : sizeof(float);
        for (size_t head = 0; head < heads; ++head) {
            uint8_t* keys = room + head * values_a_head * unit;
            float* step = steps ? steps + head * 2 * s.length_stride() : nullptr;
            memory[i * heads + head] = {keys, keys + size_t(s.length_stride()) * s.key_channels() * unit, step,
                                        step ? step + s.length_stride() : nullptr};
        }
    }
    scratch.resize(size_t(count) * team);
    for (int g = 0; g < count; ++g) {
        const int first = static_cast<int>(int64_t(batch) * g / count);
        const int rows = static_cast<int>(int64_t(batch) * (g + 1) / count) - first;
        for (int row = 0; row < rows; ++row) places[first + row] = {g, row};
        for (int rank = 0; rank < team; ++rank) {
            const size_t widest = s.widest(), longest = std::max(s.widest(), s.length_stride());
            scratch[size_t(g) * team + rank] = {floats(rows * widest),
                                                bytes(rows * widest),
                                                floats(rows),
                                                reinterpret_cast<int32_t*>(floats(widest)),
                                                floats(s.length_stride()),
                                                bytes(longest),
                                                floats(size_t(3) * s.codebook_stride())};
        }
        const size_t r = rows;
        groups.push_back({rows, 0, true, pictures.data() + first, floats(r * s.width_stride()),
                          floats(r * 3 * s.heads_stride()), floats(r * s.heads_stride()), floats(r * s.hidden_stride()),
                          floats(r * s.codebook_stride()), reinterpret_cast<uint32_t*>(floats(r * 2 * s.codebook)),
                          scratch.data() + size_t(g) * team});
    }
}

void Session::seed(const uint32_t* seeds) {
    twisters.resize(batch);
    for (int i = 0; i < batch; ++i) {
        uint32_t* state = twisters[i].state;
        state[0] = seeds[i];
        for (uint32_t k = 1; k < TWISTER_WORDS; ++k) state[k] = 1812433253u * (state[k - 1] ^ (state[k - 1] >> 30)) + k;
        twisters[i].used = TWISTER_WORDS;
        pictures[i].twister = &twisters[i];
    }
}

void Session::give(const int64_t* tokens, const uint8_t* known) {
    const size_t length = shape().length, count = batch * length;
    for (size_t i = 0; i < count; ++i) check(tokens[i]);  // unknown ones too: `advance` may take them
    std::copy_n(tokens, count, all_tokens.data());
    if (known) {
        all_known = Buffer<uint8_t>(count);
        std::copy_n(known, count, all_known.data());
    }
    for (int i = 0; i < batch; ++i) pictures[i].known = known ? all_known.data() + i * length : nullptr;
}

void Session::measure() {
    all_bits = Buffer<float>(size_t(batch) * shape().length);
    for (int i = 0; i < batch; ++i) pictures[i].bits = all_bits.data() + size_t(i) * shape().length;
}

std::vector<int> Session::advance(int until, const std::optional<Race>& race) {
    require(0 <= until && until <= shape().length,
            "until is " + std::to_string(until) + ": a picture has " + std::to_string(shape().length) + " tokens");
    if (race) check(*race);
    const Task task{until, race.has_value(), race.value_or(Race{})};
    if (team > 1) {
        advance_team(groups[0], task);
    } else {
        std::atomic<size_t> next{0};
        run_threads(static_cast<int>(std::min<size_t>(threads, groups.size())), [&](int) {
            for (size_t g = next++; g < groups.size(); g = next++) {
                Barrier alone{1};
                decode(model.model(), groups[g], task, alone, 0);
            }
        });
    }
    std::vector<int> doubts;
    for (int i = 0; i < batch; ++i)
        if (pictures[i].is_in_doubt) doubts.push_back(i);
    return doubts;
}

void Session::advance_team(Group& group, const Task& task) {
    const auto goes_on = [&] {
        return group.step < task.until && group.is_finite &&
               std::none_of(
                   group.pictures, group.pictures + group.rows, [](const Picture& p) { return p.is_in_doubt; });
    };
    if (group.step >= task.until) return;
    do {
        if (Clock::now() < busy_until.load()) {
            Barrier alone{1};
            decode(model.model(), group, task, alone, 0);
        } else {
            Barrier barrier{team};
            run_threads(team, [&](int rank) { decode(model.model(), group, task, barrier, rank); });
            if (barrier.was_late) busy_until = Clock::now() + BUSY;
        }
    } while (goes_on());
}

void Session::decide(int picture, int64_t token) {
    check(token);
    require(done(picture) > 0, "picture " + std::to_string(picture) + " has no token yet");
    pictures[picture].tokens[done(picture) - 1] = token;
    pictures[picture].is_in_doubt = false;
}

int Session::done(int picture) const {
    check(picture);
    return group_of(picture).step;
}

const float* Session::bits() const {
    require(all_bits.data() != nullptr, "bits are measured from measure() on");
    return all_bits.data();
}

bool Session::is_finite() const {
    return std::all_of(groups.begin(), groups.end(), [](const Group& group) { return group.is_finite; });
}

const float* Session::logits(int picture) const {
    check(picture);
    return group_of(picture).logits + size_t(places[picture].row) * shape().codebook_stride();
}

const uint32_t* Session::words(int picture) const {
    check(picture);
    return group_of(picture).words + size_t(places[picture].row) * 2 * shape().codebook;
}

void Session::check(const Race& race) {
    const auto within = [](const char* name, float value, float most) {
        require(0 <= value && value <= most, std::string(name) + " is " + std::to_string(value) + ": out of its range");
    };
    constexpr float ANY = std::numeric_limits<float>::infinity();
    within("temperature", race.temperature, ANY);
    within("top_k", static_cast<float>(race.top_k), ANY);
    within("top_p", race.top_p, 1);
    within("min_p", race.min_p, 1);
    within("doubt", race.doubt, ANY);
}

void Session::check(int picture) const {
    require(0 <= picture && picture < batch,
            "there is no picture " + std::to_string(picture) + " among " + std::to_string(batch));
}

void Session::check(int64_t token) const {
    require(0 <= token && token < shape().codebook,
            "token " + std::to_string(token) + " is outside of the codebook of " + std::to_string(shape().codebook));
}

}  // namespace bisquit
