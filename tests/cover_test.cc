// solve_cover against brute force: thousands of small random instances of every kind (plain set cover, odd cycles of
// apart pairs, accept sets that share pairwise but not together, scarce pools, limits, every order of objectives), each
// solved by trying all partitions. What is compared: status, objective values, the canonical partition, that the
// candidates named make it, and that the bound and its witness hold. The mix of instances is asserted too, so that
// these comparisons keep meaning something.
#include "engine/solve/cover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <sstream>
#include <string>

#include "tests/support/oracle.h"

namespace ioplan {
namespace {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  std::size_t index(std::size_t n) { return static_cast<std::size_t>(below(n)); }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
};

// Costs are drawn from a few values, so that ties (and with them the canonical choice) are common.
CoverCandidate random_candidate(Dice& dice, std::size_t elements) {
  CoverCandidate c;
  c.accepts.resize(elements);
  c.page_table_bytes = 4096 * dice.below(3);
  c.unneeded_flags = dice.chance(30) ? dice.below(3) : 0;
  c.enforces = dice.chance(60);
  c.stage = dice.chance(70) ? 1 : 2;
  return c;
}

void add_random_candidates(Dice& dice, CoverInstance& instance, std::size_t count, unsigned density) {
  for (std::size_t i = 0; i < count; ++i) {
    CoverCandidate c = random_candidate(dice, instance.elements);
    for (std::size_t e = 0; e < instance.elements; ++e) c.accepts[e] = dice.chance(density);
    instance.candidates.push_back(std::move(c));
  }
}

// Candidates that take everything but one element: any two share, not all of them do.
void add_all_but_one(Dice& dice, CoverInstance& instance) {
  for (std::size_t without = 0; without < instance.elements; ++without) {
    CoverCandidate c = random_candidate(dice, instance.elements);
    c.accepts.set();
    c.accepts.reset(without);
    instance.candidates.push_back(std::move(c));
  }
}

void add_cycle(Dice& dice, CoverInstance& instance, std::size_t length) {
  std::vector<std::uint32_t> on(instance.elements);
  std::iota(on.begin(), on.end(), 0U);
  std::shuffle(on.begin(), on.end(), dice.engine());
  for (std::size_t i = 0; i < length; ++i) instance.apart.emplace_back(on[i], on[(i + 1) % length]);
}

void add_random_apart(Dice& dice, CoverInstance& instance, unsigned density) {
  for (std::uint32_t a = 0; a < instance.elements; ++a) {
    for (std::uint32_t b = a + 1; b < instance.elements; ++b) {
      if (dice.chance(density)) instance.apart.emplace_back(a, b);
    }
  }
}

void add_pools(Dice& dice, CoverInstance& instance) {
  const std::size_t count = 1 + dice.index(2);
  for (std::size_t i = 0; i < count; ++i) {
    CoverPool pool;
    pool.elements.resize(instance.elements);
    for (std::size_t e = 0; e < instance.elements; ++e) pool.elements[e] = dice.chance(60);
    pool.stage = 1 + static_cast<unsigned>(dice.below(2));
    pool.capacity = dice.below(4);
    instance.pools.push_back(std::move(pool));
  }
}

// Two elements that nothing tells apart, as signatures never are but sub-problems may be.
void copy_an_element(Dice& dice, CoverInstance& instance) {
  const std::size_t from = dice.index(instance.elements), to = dice.index(instance.elements);
  for (CoverCandidate& c : instance.candidates) c.accepts[to] = c.accepts[from];
  instance.enforceable[to] = instance.enforceable[from];
}

CoverInstance random_instance(std::uint64_t seed) {
  Dice dice(seed);
  CoverInstance instance;
  const bool pools = dice.chance(25);
  instance.elements = 1 + dice.index(pools ? 6 : dice.chance(3) ? 9 : 7);
  for (std::size_t i = 0; i < instance.elements; ++i)
    instance.enforceable.push_back(dice.chance(60) ? dice.below(3) : 0);
  const unsigned density = 25 + static_cast<unsigned>(dice.below(60));
  const unsigned shape = static_cast<unsigned>(dice.below(5));
  if (shape == 0 && instance.elements >= 3) add_all_but_one(dice, instance);
  if (shape == 1 || shape == 2) {
    add_random_candidates(dice, instance, 1 + dice.index(3), 100);
    if (instance.elements >= 5) add_cycle(dice, instance, instance.elements >= 7 && dice.chance(50) ? 7 : 5);
  }
  if (shape != 0 || dice.chance(50)) add_random_candidates(dice, instance, 1 + dice.index(9), density);
  if (dice.chance(40)) add_random_apart(dice, instance, static_cast<unsigned>(dice.below(50)));
  if (dice.chance(55)) add_random_candidates(dice, instance, 1, 100);
  if (dice.chance(20)) copy_an_element(dice, instance);
  if (pools) add_pools(dice, instance);
  if (dice.chance(30)) instance.max_blocks = 1 + dice.below(instance.elements);
  if (dice.chance(60)) std::shuffle(instance.order.begin(), instance.order.end(), dice.engine());
  std::shuffle(instance.candidates.begin(), instance.candidates.end(), dice.engine());
  return instance;
}

std::string to_text(const CoverInstance& instance) {
  std::ostringstream out;
  out << "elements " << instance.elements << "; enforceable";
  for (auto e : instance.enforceable) out << ' ' << e;
  out << "; order";
  for (Objective o : instance.order) out << ' ' << kObjectiveNames[static_cast<std::size_t>(o)];
  for (const CoverCandidate& c : instance.candidates) {
    out << "\n  candidate {";
    for (std::size_t e = 0; e < instance.elements; ++e) out << (c.accepts[e] ? std::to_string(e) : "-");
    out << "} bytes " << c.page_table_bytes << " flags " << c.unneeded_flags << (c.enforces ? " cc" : " non-cc")
        << " stage " << c.stage;
  }
  for (const auto& [a, b] : instance.apart) out << "\n  apart " << a << ' ' << b;
  for (const CoverPool& p : instance.pools) {
    out << "\n  pool {";
    for (std::size_t e = 0; e < instance.elements; ++e) out << (p.elements[e] ? std::to_string(e) : "-");
    out << "} stage " << p.stage << " capacity " << p.capacity;
  }
  if (instance.max_blocks) out << "\n  max_blocks " << *instance.max_blocks;
  return out.str();
}

std::vector<ElementSet> blocks_of(const CoverInstance& instance, const CoverSolution& s) {
  std::vector<ElementSet> blocks(s.candidate_of.size(), ElementSet(instance.elements));
  for (std::size_t e = 0; e < s.block_of.size(); ++e) {
    if (s.block_of[e] >= blocks.size())
      ADD_FAILURE() << "block " << s.block_of[e] << " has no candidate";
    else
      blocks[s.block_of[e]].set(e);
  }
  return blocks;
}

// The candidates that the solution names accept their blocks, keep within the pools and cost what it says.
void expect_made_of_candidates(const CoverInstance& instance, const CoverSolution& s) {
  const std::vector<ElementSet> blocks = blocks_of(instance, s);
  ObjectiveValues total;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const CoverCandidate& c = instance.candidates.at(s.candidate_of[b]);
    EXPECT_TRUE(blocks[b].is_subset_of(c.accepts)) << "block " << b;
    total = total + block_cost(instance, blocks[b], c);
  }
  EXPECT_EQ(total, s.values);
  for (const CoverPool& pool : instance.pools) {
    std::uint64_t drawn = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      drawn += instance.candidates[s.candidate_of[b]].stage == pool.stage && blocks[b].intersects(pool.elements);
    }
    EXPECT_LE(drawn, pool.capacity);
  }
}

void expect_bound_holds(const CoverInstance& instance, const CoverSolution& s, const oracle::CoverAnswer& truth) {
  EXPECT_LE(s.lower_bound, truth.fewest_blocks);
  if (s.proof == ProofKind::witness) {
    EXPECT_EQ(s.witness.size(), s.lower_bound);
    for (std::size_t i = 0; i < s.witness.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) EXPECT_TRUE(oracle::exclusive(instance, s.witness[i], s.witness[j]));
    }
  }
  // Pools do not help to bound a count that is not the first objective; everything else must close the gap.
  const bool count_first = instance.order[0] == Objective::hwpts ||
                           (instance.order[0] == Objective::ioas && instance.order[1] == Objective::hwpts);
  if (count_first || instance.pools.empty()) {
    EXPECT_EQ(s.lower_bound, truth.fewest_blocks);
    EXPECT_NE(s.proof, ProofKind::none);
    if (truth.clique == truth.fewest_blocks) {
      EXPECT_EQ(s.proof, ProofKind::witness);
    }
  }
  for (std::size_t o = 0; o < 5; ++o) {
    EXPECT_TRUE(s.proved[o]) << kObjectiveNames[o] << " is not proved";
  }
}

void expect_right(const CoverInstance& instance, const oracle::CoverAnswer& truth) {
  const CoverSolution s = solve_cover(instance);
  EXPECT_NE(s.status, CoverStatus::unproved_infeasible);
  EXPECT_EQ(s.status == CoverStatus::solved, truth.feasible);
  if (s.status != CoverStatus::solved || !truth.feasible) return;
  EXPECT_EQ(s.values.by_objective, truth.values.by_objective);
  EXPECT_EQ(s.block_of, truth.block_of);
  expect_made_of_candidates(instance, s);
  expect_bound_holds(instance, s, truth);
}

std::uint64_t instances() {
  const char* scale = std::getenv("IOPLAN_SCALE");
  return scale != nullptr ? static_cast<std::uint64_t>(6000 * std::strtod(scale, nullptr)) : 6000;
}

// Enough to see a pattern; IOPLAN_FAILURES asks for more.
std::uint64_t max_failures() {
  const char* text = std::getenv("IOPLAN_FAILURES");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 10;
}

TEST(Cover, AgreesWithBruteForceOnRandomInstances) {
  std::uint64_t infeasible = 0, several = 0, gap = 0, failures = 0, cost_first = 0;
  for (std::uint64_t seed = 0; seed < instances() && failures < max_failures(); ++seed) {
    const CoverInstance instance = random_instance(seed);
    const oracle::CoverAnswer truth = oracle::brute_force_cover(instance);
    const auto before = ::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + to_text(instance));
    expect_right(instance, truth);
    if (::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() != before) ++failures;
    infeasible += !truth.feasible;
    several += truth.feasible && truth.values[Objective::hwpts] > 1;
    gap += truth.feasible && truth.clique < truth.fewest_blocks;
    cost_first += truth.feasible && truth.fewest_blocks < truth.values[Objective::hwpts];
  }
  const std::uint64_t n = instances();
  std::printf(
      "mix: %llu instances, %llu infeasible, %llu of several blocks, %llu with a clique below the optimum, "
      "%llu with more blocks than necessary\n",
      static_cast<unsigned long long>(n), static_cast<unsigned long long>(infeasible),
      static_cast<unsigned long long>(several), static_cast<unsigned long long>(gap),
      static_cast<unsigned long long>(cost_first));
  EXPECT_GE(infeasible * 100, n * 10);
  EXPECT_GE(several * 100, n * 25);
  EXPECT_GE(gap * 100, n * 5);
  EXPECT_GE(cost_first * 100, n * 2);
}

}  // namespace
}  // namespace ioplan
