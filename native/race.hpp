// The race for the next token, in float32: bisquit.sampling.race, which decides again where this one is in doubt.

#pragma once

#include "functions.hpp"

namespace bisquit::VARIANT {

// Fill the state with the twister's next 624 words.
inline void turn(Twister& twister) {
    constexpr int N = TWISTER_WORDS, M = 397;
    uint32_t* s = twister.state;
    const auto mixed = [](uint32_t a, uint32_t b) {
        const uint32_t y = (a & 0x80000000u) | (b & 0x7fffffffu);
        return (y >> 1) ^ ((b & 1u) ? 0x9908b0dfu : 0u);
    };
    // Each word depends on none of the 227 before it: the compiler may take many at a time.
#pragma GCC ivdep
    for (int i = 0; i < N - M; ++i) s[i] = s[i + M] ^ mixed(s[i], s[i + 1]);
#pragma GCC ivdep
    for (int i = N - M; i < N - 1; ++i) s[i] = s[i + M - N] ^ mixed(s[i], s[i + 1]);
    s[N - 1] = s[M - 1] ^ mixed(s[N - 1], s[0]);
    twister.used = 0;
}

// Draw the next `count` words, as std::mt19937 does.
inline void draw(Twister& twister, uint32_t* words, int count) {
    while (count > 0) {
        if (twister.used == TWISTER_WORDS) turn(twister);
        const int left = TWISTER_WORDS - twister.used;
        const int n = count < left ? count : left;
        const uint32_t* state = twister.state + twister.used;
        for (int i = 0; i < n; ++i) {
            uint32_t y = state[i];
            y ^= y >> 11;
            y ^= (y << 7) & 0x9d2c5680u;
            y ^= (y << 15) & 0xefc60000u;
            words[i] = y ^ (y >> 18);
        }
        twister.used += n;
        words += n;
        count -= n;
    }
}

// Gumbel noise -log(-log u) of u = (high + low / 2**32) / 2**21, to 2e-6: high in [0, 2**21), low 32 bits.
INLINE F gumbel(I high, I low) {
    constexpr float HIGH = 1.0f / (1 << 21), LOW = HIGH / (1 << 24);  // 24 bits of low are enough
    const F u = to_float(high) * HIGH + to_float((low >> 8) & 0xffffff) * LOW;
    const F v = to_float(0x1fffff - high) * HIGH + to_float((~low >> 8) & 0xffffff) * LOW;  // 1 - u, to its last digits
    // -log u is the more exact the closer its argument is to u: near 1 that is 1 - v, and what was lost in rounding it.
    const F w = 1.0f - v;
    const I is_small = u < 0.5f;
    const F nats = (is_small ? F{} : v - (1.0f - w)) - log(is_small ? u : w);
    return -log(nats);
}

constexpr float NEVER = -3e38f;

struct Outcome {
    int token;
    bool is_in_doubt;
};

// How a token stands among the others, each chance that of softmax(logits / temperature).
struct Standing {
    int likelier;           // how many tokens have a higher logit, by more than the slack
    float likelier_chance;  // the chance of all those together
};

inline Standing standing(const float* logits, const float* chances, int size, int token, float slack) {
    const F mine = fill(logits[token] + slack);
    const F none = F{};
    I count = I{};
    F chance = F{};
    for (int i = 0; i < size; i += LANES) {
        const I above = load(logits + i) > mine;
        count -= above;
        chance += above ? load(chances + i) : none;
    }
    Standing result{sum(count), sum(chance)};
    if (slack < 0) {  // the token was counted as likelier than itself
        result.likelier -= 1;
        result.likelier_chance -= chances[token];
    }
    return result;
}

// Whether top-k, top-p and min-p leave a token in the race, its logit taken as higher by the slack.
inline bool is_allowed(const float* logits, const float* chances, int size, int token, float most, const Race& race,
                       float slack) {
    const Standing place = standing(logits, chances, size, token, slack);
    if (place.likelier == 0) return true;
    const float chance_slack = slack / race.temperature + (slack > 0 ? 1e-5f : -1e-5f);  // float32 sums
    if (race.top_k > 0 && place.likelier >= race.top_k) return false;
    if (race.top_p < 1 && place.likelier_chance >= race.top_p + chance_slack) return false;
    if (race.min_p > 0 && logits[token] + slack < most + race.temperature * log(fill(race.min_p))[0]) return false;
    return true;
}

// Choose a token. logits: [stride], of which `codebook` count. words: [2 codebook] random words. space: [3 stride].
inline Outcome race(const float* logits, const uint32_t* words, int codebook, int stride, const Race& race,
                    float* space) {
    float *scores = space, *chances = space + stride, *own = space + 2 * stride;
    for (int i = 0; i < stride; ++i) own[i] = i < codebook ? logits[i] : NEVER;
    logits = own;

    if (race.temperature == 0) {
        for (int i = 0; i < stride; ++i) scores[i] = logits[i];
    } else {
        int32_t* high = reinterpret_cast<int32_t*>(scores);
        int32_t* low = reinterpret_cast<int32_t*>(chances);
        for (int i = 0; i < codebook; ++i) {
            high[i] = static_cast<int32_t>(words[2 * i] & 0x1fffff);
            low[i] = static_cast<int32_t>(words[2 * i + 1]);
        }
        for (int i = codebook; i < stride; ++i) high[i] = low[i] = 0;
        for (int i = 0; i < stride; i += LANES)
            store(scores + i, load(logits + i) + race.temperature * gumbel(load(high + i), load(low + i)));
    }
    const float doubt = race.doubt + race.temperature * 1e-5f;  // the noise's own rounding grows with it
    const bool drops = race.temperature > 0 && (race.top_k > 0 || race.top_p < 1 || race.min_p > 0);

    F most = fill(NEVER);
    for (int i = 0; i < stride; i += LANES) most = larger(load(logits + i), most);
    const float likeliest = largest(most);
    if (drops) {
        const float scale = LOG2_E / race.temperature;
        F total = F{};
        for (int i = 0; i < stride; i += LANES) {
            const F chance = exp2((load(logits + i) - likeliest) * scale);
            store(chances + i, chance);
            total += chance;
        }
        const float one_by_total = 1.0f / sum(total);
        for (int i = 0; i < stride; i += LANES) store(chances + i, load(chances + i) * one_by_total);
        for (int i = codebook; i < stride; ++i) chances[i] = 0;
    }

    while (true) {
        F best = fill(NEVER);
        for (int i = 0; i < stride; i += LANES) best = larger(load(scores + i), best);
        const float winning = largest(best);
        I rivals = I{}, winners = I{}, here = lane_numbers();
        for (int i = 0; i < stride; i += LANES, here += LANES) {
            const F score = load(scores + i);
            rivals -= score > winning - doubt;
            winners = score == winning ? here : winners;
        }
        int winner = 0;
        for (int lane = 0; lane < LANES; ++lane) winner = winners[lane] > winner ? winners[lane] : winner;
        if (winner >= codebook) return {0, true};  // no score is a number
        const int close = sum(rivals);
        if (!drops || is_allowed(logits, chances, stride, winner, likeliest, race, -doubt)) return {winner, close != 1};
        if (is_allowed(logits, chances, stride, winner, likeliest, race, doubt)) return {winner, true};
        // What is less likely than a token that is left out is left out as well.
        const F bound = fill(logits[winner]), never = fill(NEVER);
        for (int i = 0; i < stride; i += LANES) store(scores + i, load(logits + i) > bound ? load(scores + i) : never);
    }
}

}  // namespace bisquit::VARIANT
