// Whether one thread computes the passes of few tokens. Such a pass is a hundred short phases, at whose ends all
// threads wait for the last one. Where other processes have the cores, each wait lasts until the scheduler's next turn,
// and one thread alone may be quicker: after some passes that were mostly waiting it is tried, and kept for a while if
// so.
#pragma once

namespace riyaz {

class Crowd {
  public:
    bool alone() const { return left_ > 0; }

    // After a pass that took `seconds`, of which its threads slept this share
    void told(double seconds, double slept) {
        if (left_ > 0) {
            alone_ += seconds;
            if (--left_ > 0 || !trial_) return;
            trial_ = false;
            (alone_ / TRIAL < together_ / IN_A_ROW ? left_ : resting_) = LONG;
            return;
        }
        if (resting_ > 0) {
            resting_--;
            return;
        }
        waited_ = slept > MOSTLY ? waited_ + 1 : 0;
        together_ = waited_ > 1 ? together_ + seconds : seconds;
        if (waited_ < IN_A_ROW) return;
        waited_ = 0, trial_ = true, left_ = TRIAL, alone_ = 0;
    }

  private:
    static constexpr double MOSTLY = 0.35;                    // of the time of all threads together
    static constexpr int IN_A_ROW = 3, TRIAL = 3, LONG = 64;  // passes

    double together_ = 0, alone_ = 0;  // seconds of the passes that are compared
    int waited_ = 0, left_ = 0, resting_ = 0;
    bool trial_ = false;
};

}  // namespace riyaz
