// Cover with apart-pairs and pools as SAT: K slots, each a possible block.
//
//   x[e][h]  element e may be in slot h; its block is the lowest such slot
//   y[h][c]  slot h may be under candidate c
//
// A true y admits only what its candidate accepts, and a slot that is not empty has some true y; costs hang on y, so
// minimising leaves one. A clique of mutually exclusive elements is fixed into the first slots, which breaks most of
// their symmetry; the slots after it are used from the first on. What the clique excludes has no variable at all.
//
// CaDiCaL is deterministic and is budgeted in conflicts.
#pragma once

#include "engine/solve/cover_parts.h"
#include "engine/solve/weighted_sum.h"

namespace ioplan::cover {

enum class Answer : std::uint8_t { yes, no, unknown };

class SlotModel {
 public:
  SlotModel(const CoverInstance& instance, const std::vector<ElementSet>& exclusive, std::size_t slots,
            const std::vector<std::uint32_t>& clique, std::uint64_t conflicts);

  // Where to look first: a partition.
  void hint(const std::vector<std::uint32_t>& block_of);

  void keep_pools();
  void forbid_last_slot();

  Answer solve(std::initializer_list<Literal> assumptions = {});

  // Drives one objective down from the last model's value and fixes it there. True when proved minimal.
  bool minimise(Objective objective);

  // From here on the elements share a block, or do not.
  void join(std::uint32_t a, std::uint32_t b);
  void separate(std::uint32_t a, std::uint32_t b);

  // May the element share a block with one of these, as things are?
  Answer may_join(std::uint32_t element, const std::vector<std::uint32_t>& others);

  // The partition of the last model, its blocks numbered by their lowest elements.
  const std::vector<std::uint32_t>& block_of() const { return block_of_; }

  // Candidates for it and what they cost, which may be less than the model says: without pools candidates are chosen
  // anew, with pools among the y literals that are true (these keep within the pools).
  const Choice& choice() const { return choice_; }

 private:
  static constexpr Literal kNever = 0;  // in x_ and y_: what cannot be

  void forbid(Literal a, Literal b, Literal unless = kNever);
  void some_of(const std::vector<Literal>& literals, Literal unless = kNever);
  void number_literals(const std::vector<ElementSet>& exclusive, const std::vector<std::uint32_t>& clique);
  void place_elements();
  void admit_by_candidates();
  void keep_apart();
  void use_tail_in_order(std::size_t first);
  void equal_if(Literal condition, std::uint32_t a, std::uint32_t b);
  std::vector<std::pair<Literal, std::uint64_t>> inputs_of(Objective objective);
  Literal not_enforced(std::size_t element);
  void read_model();
  Choice choose_among_true(const std::vector<std::size_t>& slot_of) const;

  const CoverInstance& instance_;
  std::size_t slots_;
  std::vector<std::uint32_t> clique_;
  std::uint64_t conflicts_;
  mutable CaDiCaL::Solver solver_;  // val() is not const
  int next_ = 1;
  std::vector<std::vector<Literal>> x_, y_;
  std::vector<Literal> empty_, tail_used_;
  std::vector<std::uint32_t> block_of_;
  Choice choice_;
};

}  // namespace ioplan::cover
