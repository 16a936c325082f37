// Sessions: the memory of pictures that are decoded together, and the threads that decode them.

#include "session.hpp"

#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>

namespace bisquit {
namespace {

constexpr size_t CACHED_BYTES = 16 << 20;  // of keys and values that a group may hold, to stay in a processor's cache
constexpr int MOST_ROWS = 8;               // of a group: as many as are multiplied at a time

// Until when the machine is taken to be busy with other work, so that teams would wait for one another.
using Clock = std::chrono::steady_clock;
constexpr auto BUSY = std::chrono::milliseconds(100);
constexpr int STEPS_ALONE = 32;  // between two looks at the clock
std::atomic<Clock::time_point> busy_until{Clock::time_point::min()};

}  // namespace

void check_token(const Shape& shape, int64_t token) {
    require(0 <= token && token < shape.codebook,
            "token " + std::to_string(token) + " is outside of the codebook of " + std::to_string(shape.codebook));
}

Session::Session(const PackedModel& model, int batch, int threads, const std::string& kernels_name,
                 std::vector<float> guidance)
    : model(model),
      batch(batch),
      kernels(find_kernels(kernels_name).decoder(model.is_int8)),
      threads(threads),
      scales(std::move(guidance)),
      workspace(model) {
    require_within("batch", batch, 1 << 16);
    require_within("threads", threads, 1024);
    const size_t length = shape().length;
    require(
        scales.empty() || scales.size() == length,
        "there are " + std::to_string(scales.size()) + " scales of guidance for " + std::to_string(length) + " tokens");
    require(std::all_of(scales.begin(), scales.end(), [](float scale) { return std::isfinite(scale); }),
            "a scale of guidance is not finite");
    const int guided = scales.empty() ? 1 : 2;  // rows of a picture
    team = batch < threads ? threads : 1;
    const size_t cached = CACHED_BYTES / (guided * workspace.bytes_a_picture());
    const int fitting = static_cast<int>(std::clamp<size_t>(cached, 1, MOST_ROWS / guided));
    const int each = (batch + threads - 1) / threads;  // pictures for a thread
    const int count = team > 1 ? 1 : std::min(batch, threads * ((each + fitting - 1) / fitting));

    all_tokens = Buffer<int64_t>(guided * batch * length);
    pictures.resize(guided * batch);
    seats.resize(batch);
    for (int half = 0; half < guided; ++half)
        for (int i = 0; i < batch; ++i)
            pictures[place_of(i) + half] = {all_tokens.data() + (half * batch + i) * length,
                                            nullptr,
                                            nullptr,
                                            workspace.picture_memory(),
                                            model.model().way,
                                            false};
    for (int g = 0; g < count; ++g) {
        const int first = static_cast<int>(int64_t(batch) * g / count);
        const int last = static_cast<int>(int64_t(batch) * (g + 1) / count);
        for (int i = first; i < last; ++i) seats[i] = {g, guided * (i - first)};
        groups.push_back(workspace.group(guided * (last - first), false, team, pictures.data() + place_of(first)));
        groups.back().scales = scales.empty() ? nullptr : scales.data();
    }
}

void Session::go(Ways all_ways) {
    for (const Group& group : groups) require(group.step == 0, "the session has begun: go another way in a new one");
    ways.emplace(std::move(all_ways));
    for (int i = 0; i < batch; ++i) {
        pictures[place_of(i)].way = (*ways)[i];
        if (!scales.empty()) pictures[place_of(i) + 1].way = (*ways)[batch + i];
    }
}

void Session::seed(const uint32_t* seeds) {
    twisters.resize(batch);
    for (int i = 0; i < batch; ++i) {
        uint32_t* state = twisters[i].state;
        state[0] = seeds[i];
        for (uint32_t k = 1; k < TWISTER_WORDS; ++k) state[k] = 1812433253u * (state[k - 1] ^ (state[k - 1] >> 30)) + k;
        twisters[i].used = TWISTER_WORDS;
        pictures[place_of(i)].twister = &twisters[i];
    }
}

void Session::give(const int64_t* tokens, const uint8_t* known) {
    const size_t length = shape().length, count = batch * length;
    for (size_t i = 0; i < count; ++i) check_token(shape(), tokens[i]);  // unknown ones too: `advance` may take them
    std::copy_n(tokens, count, all_tokens.data());
    if (!scales.empty()) std::copy_n(tokens, count, all_tokens.data() + count);
    if (known) {
        all_known = Buffer<uint8_t>(count);
        std::copy_n(known, count, all_known.data());
    }
    for (int i = 0; i < batch; ++i) pictures[place_of(i)].known = known ? all_known.data() + i * length : nullptr;
}

std::vector<int> Session::advance(int until, const std::optional<Race>& race) {
    require(0 <= until && until <= shape().length,
            "until is " + std::to_string(until) + ": a picture has " + std::to_string(shape().length) + " tokens");
    if (race) check(*race);
    for (const Group& group : groups) require(!group.is_stopped, "the session has ended: its chooser failed");
    run({until, race.has_value(), race.value_or(Race{}), nullptr});
    std::vector<int> doubts;
    for (int i = 0; i < batch; ++i)
        if (pictures[place_of(i)].is_in_doubt) doubts.push_back(i);
    return doubts;
}

void Session::decode(const Choose& choose) {
    for (const Group& group : groups) require(group.step == 0, "the session has begun: decode in a new one");
    require(scales.empty(), "the session has guides: decode in one without");
    struct Context {
        Session& session;
        const Choose& choose;
    } context{*this, choose};
    const Chooser chooser{[](void* to, Group& group, int step) {
                              const Context& context = *static_cast<Context*>(to);
                              return context.session.choose(context.choose, group, step);
                          },
                          &context};
    run({shape().length, false, Race{}, &chooser});
}

bool Session::choose(const Choose& choose, Group& group, int step) {
    const int first = static_cast<int>(group.pictures - pictures.data());
    if (!choose(first, group.rows, group.frequencies, group.chosen)) return false;
    for (int row = 0; row < group.rows; ++row) group.pictures[row].tokens[step] = group.chosen[row];
    return true;
}

void Session::run(const Task& task) {
    if (team > 1) {
        advance_team(groups[0], task);
    } else {
        std::atomic<size_t> next{0};
        std::atomic<bool> ends{false};
        run_threads(static_cast<int>(std::min<size_t>(threads, groups.size())), [&](int) {
            for (size_t g = next++; g < groups.size() && !ends; g = next++) {
                Barrier alone{1};
                kernels.decode(model.model(), groups[g], task, alone, 0);
                if (groups[g].is_stopped || !groups[g].is_finite) ends = true;
            }
        });
    }
}

void Session::advance_team(Group& group, const Task& task) {
    const auto goes_on = [&] {
        return group.step < task.until && group.is_finite && !group.is_stopped &&
               std::none_of(
                   group.pictures, group.pictures + group.rows, [](const Picture& p) { return p.is_in_doubt; });
    };
    if (group.step >= task.until) return;
    do {
        if (Clock::now() < busy_until.load()) {
            Barrier alone{1};
            Task some = task;
            some.until = std::min(task.until, group.step + STEPS_ALONE);
            kernels.decode(model.model(), group, some, alone, 0);
        } else {
            Barrier barrier{team};
            run_threads(team, [&](int rank) { kernels.decode(model.model(), group, task, barrier, rank); });
            if (barrier.was_late) busy_until = Clock::now() + BUSY;
        }
    } while (goes_on());
}

void Session::take(const int64_t* tokens) {
    for (int i = 0; i < batch; ++i) check_token(shape(), tokens[i]);
    for (int i = 0; i < batch; ++i) decide(i, tokens[i]);
}

void Session::decide(int picture, int64_t token) {
    check_token(shape(), token);
    require(done(picture) > 0, "picture " + std::to_string(picture) + " has no token yet");
    Picture& own = pictures[place_of(picture)];
    own.tokens[done(picture) - 1] = token;
    own.is_in_doubt = false;
    if (!scales.empty()) pictures[place_of(picture) + 1].tokens[done(picture) - 1] = token;
}

int Session::done(int picture) const {
    check(picture);
    return group_of(picture).step;
}

bool Session::is_finite() const {
    return std::all_of(groups.begin(), groups.end(), [](const Group& group) { return group.is_finite; });
}

const float* Session::logits(int picture) const {
    check(picture);
    return group_of(picture).logits + size_t(seats[picture].row) * shape().codebook_stride();
}

const uint32_t* Session::words(int picture) const {
    check(picture);
    return group_of(picture).words + size_t(seats[picture].row) * 2 * shape().codebook;
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

}  // namespace bisquit
