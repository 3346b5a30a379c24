// How groups share a VFIO type1 container (KR 5.1, Linux vfio_iommu_type1_attach_group).
//
// Whole groups join, one after the other. Each gets a domain of its own, made for one of its devices without flags, and
// leaves it for the newest domain of the container that takes it; what Linux does not check, it does not refuse. Only the
// order of joining can be chosen. An order can reach exactly these outcomes:
//   - every HWPT is the own domain of one of its groups, its opener;
//   - the HWPTs can be put in an order in which no older one takes the opener of a newer one;
//   - every other group is in any HWPT that takes it: it joins while that HWPT is the newest.
// So the planner looks for a cover (cover.h) under type1's rules, which bounds the number of HWPTs from below, and then for
// openers and an order. Where the cover itself has none, groups are moved, and at last all partitions are searched within
// a budget; then only the bound is proved, not the other objectives.
// Held by tests/type1_plan_test.cc (the simulated container, and all orders of small VMs).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/solve/solver.h"

namespace ioplan {

// The domains of one VM's container, and the order in which its groups (of Problem::groups) join.
struct Container {
  std::vector<SolvedHwpt> hwpts;  // in the order of their lowest device
  std::vector<std::uint32_t> joining;
};

enum class Joinable : std::uint8_t { yes, no, unknown };

// Can memory be mapped with these page sizes, which all domains of a container have (type1.page-sizes)?
bool pages_fit(std::uint64_t sizes, const Problem& problem);

struct Joining {
  Joinable answer = Joinable::no;
  bool as_covered = false;  // the cover's own blocks, so that what is proved of it holds
  Container container;
};

class ContainerPlanner {
 public:
  // Requires: a model made under type1's law; all must outlive this.
  ContainerPlanner(const Request& request, const VmModel& model, const RuleBook& rules, const Law& law);

  // What keeps the VM from any container, whatever the order.
  std::optional<VmRefusal> refusal() const;

  // `hwpts`: as the cover has it. `least`: so many are needed, for all that is proved. `budget`: partitions, and choices of
  // templates for one, that are looked at.
  // Requires: no refusal.
  Joining join(const std::vector<SolvedHwpt>& hwpts, std::size_t least, std::uint64_t budget) const;

  // Why no order will do; `budget` as above.
  VmRefusal no_order(std::uint64_t budget) const;

 private:
  using Block = std::vector<std::uint32_t>;  // items, ascending
  struct Opening {
    std::uint32_t offer = 0;
    std::uint32_t group = 0;
    TemplateRank rank;
    ObjectiveValues cost;
  };
  using Openings = std::vector<Opening>;
  enum class Pages : std::uint8_t { in_common, any };

  bool takes(std::uint32_t offer, std::uint32_t group) const;
  Openings openings(const Block& block) const;
  bool accepts(std::uint32_t offer, const Block& block) const;
  bool stands_apart(const Block& block, std::uint32_t item) const;
  bool pages_in_common(const std::vector<std::uint32_t>& offers) const;
  std::optional<Container> order(const std::vector<Block>& blocks, Pages pages, std::uint64_t& budget) const;
  std::optional<Container> order(const std::vector<Block>& blocks, const std::vector<Openings>& openings) const;
  bool give_openers(std::vector<Block>& blocks) const;
  bool move_an_opener(std::vector<Block>& blocks, std::size_t to) const;
  std::size_t most_openers() const;
  ObjectiveValues cost(const Container& container) const;
  class Partitions;

  const Request& request_;
  const VmModel& model_;
  const Problem& problem_;
  std::vector<std::optional<std::uint32_t>> own_;  // by group: its own domain, as an offer
  std::vector<std::uint32_t> mixed_;               // groups whose devices would make different domains
  std::vector<std::vector<bool>> takes_class_;     // by offer, by class: Linux attaches it
};

}  // namespace ioplan
