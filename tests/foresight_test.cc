// Foresight: what is promised at boot succeeds in frozen mode, in every order; no more could have been promised, and it
// costs no more than brute force finds (support/lifecycle_oracle).
//
// IOPLAN_SCALE multiplies the random runs (20 is a full one: 5,000 VMs), IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "constraints/kernel_law.h"
#include "engine/check/check.h"
#include "engine/lifecycle/headroom.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "tests/support/history.h"
#include "tests/support/lifecycle_oracle.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

Plan planned(const Request& request) {
  PlanOptions options;
  options.explain_no = false;
  return make_plan(request, kernel_law(), options);
}

std::vector<std::string> devices_promised(const Plan& plan) {
  std::vector<std::string> devices;
  for (const Promise& p : plan.promises) {
    if (!p.device.empty()) devices.push_back(p.device);
  }
  return devices;
}

std::optional<Range> memory_promised(const Plan& plan) {
  for (const Promise& p : plan.promises) {
    if (p.device.empty()) return p.memory;
  }
  return std::nullopt;
}

std::string text_of(const std::optional<Range>& r) {
  return r ? fmt::format("{:#x}-{:#x}", r->start, r->last) : "none";
}

TEST(Foresight, PromisesWhatBruteForcePromisesAtNoMoreCost) {
  std::map<std::string, std::size_t> count;
  for_seeds(250, [&](std::uint64_t seed) {
    const Request request = generator::random_expectations(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const Plan plan = planned(request);
    const oracle::Foresight truth = oracle::foresee(request);
    ASSERT_EQ(plan.verdict == Verdict::feasible, truth.feasible);
    if (!truth.feasible) return;
    EXPECT_EQ(text_of(memory_promised(plan)), text_of(truth.memory));
    std::string refused;
    for (const Unpromised& u : plan.unpromised) refused += fmt::format("\n  {}: {} ({})", u.subject, u.because, u.rule);
    ASSERT_EQ(devices_promised(plan), truth.devices) << refused;
    EXPECT_EQ(plan.objectives, truth.objectives);
    EXPECT_EQ(plan.preferences, truth.preferences);
    for (const Objection& o : check_plan(plan, request, kernel_law()).objections) {
      ADD_FAILURE() << o.obligation << ": " << o.text;
    }
    count["promised devices"] += truth.devices.size();
    count["promised memory"] += truth.memory ? 1 : 0;
    count["not promised"] += plan.unpromised.size();
  });
  for (const auto& [what, n] : count) std::printf("%-18s %zu\n", what.c_str(), n);
}

// One order of plugs: devices, and memory where the word is "".
void plug_in_order(const Request& request, Plan running, const std::vector<std::string>& order) {
  for (const std::string& word : order) {
    Change change;
    if (word.empty()) {
      change.memory = {*memory_promised(running)};
    } else {
      change.add = {word};
    }
    const auto promise = std::ranges::find(running.promises, word, &Promise::device);
    ASSERT_NE(promise, running.promises.end()) << word << " lost its promise";
    const auto answer = hotplug(running, request, change, HotplugPolicy::frozen, kernel_law(), {{}, Advice::none});
    ASSERT_TRUE(answer.has_value()) << to_text(answer.error());
    ASSERT_EQ(answer->verdict, Verdict::feasible) << word << ": " << answer->conflict.front().because;
    EXPECT_TRUE(answer->guest.empty());
    if (!word.empty()) {
      EXPECT_EQ(home_of(answer->plan, word)->id, promise->hwpt);
    }
    running = answer->plan;
  }
}

TEST(Foresight, EveryPromisedPlugSucceedsInEveryOrder) {
  std::size_t orders = 0;
  for_seeds(250, [&](std::uint64_t seed) {
    const Request request = generator::random_expectations(seed);
    const Plan plan = planned(request);
    if (plan.verdict != Verdict::feasible || plan.promises.empty()) return;
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::vector<std::string> order;
    for (const Promise& p : plan.promises) order.push_back(p.device);
    std::ranges::sort(order);
    if (order.size() > 4) order.resize(4);
    do {
      plug_in_order(request, plan, order);
      ++orders;
    } while (std::ranges::next_permutation(order).found && !testing::Test::HasFailure());
  });
  std::printf("%zu orders\n", orders);
  EXPECT_GT(orders, 100U);
}

// Headroom says of every device what hotplug says of it.
TEST(Headroom, IsWhatHotplugAnswers) {
  std::map<std::string_view, std::size_t> count;
  for_seeds(60, [&](std::uint64_t seed) {
    const Request request = generator::random_expectations(seed);
    const Plan plan = planned(request);
    if (plan.verdict != Verdict::feasible) return;
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const auto room = headroom(plan, request, "", kernel_law());
    ASSERT_TRUE(room.has_value()) << to_text(room.error());
    for (const DeviceHeadroom& d : room->devices) {
      Change change;
      change.add = {d.device};
      const auto in = [&](HotplugPolicy mode) {
        const auto answer = hotplug(plan, request, change, mode, kernel_law(), {{}, Advice::none});
        return answer && answer->verdict == Verdict::feasible;
      };
      const bool frozen = in(HotplugPolicy::frozen), additive = in(HotplugPolicy::additive),
                 converge = in(HotplugPolicy::converge);
      if (frozen) {
        EXPECT_EQ(d.room, Room::joins) << d.device;
      } else if (additive) {
        EXPECT_TRUE(d.room == Room::joins || d.room == Room::new_hwpt) << d.device;
      } else {
        EXPECT_EQ(d.room, converge ? Room::after_moves : Room::none) << d.device;
      }
      EXPECT_EQ(d.room == Room::none, !d.rule.empty());
      ++count[kRoomNames[static_cast<std::size_t>(d.room)]];
    }
  });
  for (const auto& [what, n] : count) std::printf("%-12s %zu\n", std::string(what).c_str(), n);
}

}  // namespace
}  // namespace ioplan
