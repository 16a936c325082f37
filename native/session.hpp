// Sessions: pictures that are painted, or decoded from a file, token by token; and the reading of those that are known.

#pragma once

#include <functional>
#include <optional>

#include "workspace.hpp"

namespace bisquit {

// Throws std::invalid_argument unless a token is in the codebook.
void check_token(const Shape& shape, int64_t token);

// Pictures that are decoded together, each with a memory of its own. Not to be used by two threads at once.
class Session {
  public:
    // scales: [length], of guidance at each step; each picture then has a guide, with the same tokens and a way of its
    // own, and the logits that count go from the guide's, 0, to the picture's, 1, and on. Empty: there are no guides.
    // Throws std::invalid_argument where a number is out of its range or the kernels are not usable here.
    Session(const PackedModel& model, int batch, int threads, const std::string& kernels_name,
            std::vector<float> scales = {});
    Session(const Session&) = delete;

    // Take ways of their own: of all pictures, and behind them of all guides, or one for all.
    void go(Ways ways);

    // Draw the races of each picture from a Mersenne twister with its seed.
    void seed(const uint32_t* seeds);
    // Take tokens as given where `known`, [batch][length], is not zero; everywhere if it is null.
    void give(const int64_t* tokens, const uint8_t* known);
    // Decode all pictures until a step, with races for the tokens that are not given; without a race, all are taken
    // from `give`. Returns the pictures whose last race was in doubt: `decide` their tokens, and advance again.
    std::vector<int> advance(int until, const std::optional<Race>& race);
    // Chooses tokens, [rows], of pictures from `first` on, by the frequencies of all codes, [rows][codebook_stride],
    // and returns whether to go on. Called by several threads, for different pictures, and must not throw.
    using Choose = std::function<bool(int first, int rows, const int32_t* frequencies, int64_t* tokens)>;
    // Decode all pictures, each token chosen, in a session without guides that has not begun. It ends where a chooser
    // would not go on.
    void decode(const Choose& choose);
    // Replace the tokens, [batch], that all pictures took last.
    void take(const int64_t* tokens);
    // Replace the token that a picture took last.
    void decide(int picture, int64_t token);
    // How many tokens of a picture are done.
    int done(int picture) const;
    // Whether all logits so far were finite.
    bool is_finite() const;

    const PackedModel& model;
    const int batch;
    const int64_t* tokens() const { return all_tokens.data(); }  // [batch][length]
    const float* logits(int picture) const;                      // [codebook], with room for whole vectors
    const uint32_t* words(int picture) const;                    // [2 codebook]
    const Shape& shape() const { return model.model().shape; }
    int count() const { return static_cast<int>(pictures.size()); }  // of pictures and guides

  private:
    // Where among `pictures` a picture is, and behind it its guide.
    int place_of(int picture) const { return scales.empty() ? picture : 2 * picture; }
    void run(const Task& task);
    bool choose(const Choose& choose, Group& group, int step);
    // Decode one group with all threads, or, while the machine seems busy, with this one alone.
    void advance_team(Group& group, const Task& task);
    static void check(const Race& race);
    void check(int picture) const;
    const Group& group_of(int picture) const { return groups[seats[picture].group]; }

    const DecoderKernels& kernels;
    int threads;
    int team;
    std::vector<Group> groups;
    const std::vector<float> scales;
    std::vector<Picture> pictures;  // each followed by its guide, if there are any
    struct Seat {
        int group, row;
    };
    std::vector<Seat> seats;  // of each picture that is not a guide
    std::optional<Ways> ways;
    Workspace workspace;
    std::vector<Twister> twisters;
    Buffer<int64_t> all_tokens;
    Buffer<uint8_t> all_known;
};

// Read pictures, tokens [batch][length] in the order of their steps, each as `readings` asks of it. Returns whether all
// logits were finite. Throws std::invalid_argument where a number is out of its range or the kernels are not usable
// here.
bool read(const PackedModel& model, int batch, const int64_t* tokens, int threads, const std::string& kernels,
          const std::vector<Reading>& readings, const Ways* ways = nullptr);

}  // namespace bisquit
