// What the obligations share: the plan on trial, the world that it is held against, and where objections go.
//
// Each obligation is one function in a file of its own; check.cc calls them in order.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/check/check.h"
#include "engine/check/choices.h"
#include "engine/check/scene.h"

namespace ioplan::check {

struct Court {
  const Plan& plan;
  const World& world;     // preferences that the plan claims count as required
  const World& unspoilt;  // they do not: what must hold of every plan
  const CheckOptions& options;
  Judgement& judgement;

  bool in_containers() const { return world.law.interface() == KernelInterface::type1; }
  void object(std::string_view obligation, std::vector<std::string> subjects, std::string text) const {
    judgement.objections.push_back({std::string(obligation), std::move(subjects), std::move(text)});
  }
  void doubt(std::string text) const { judgement.doubts.push_back(std::move(text)); }
};

// A planned HWPT with its references resolved, as far as they can be.
struct Seat {
  const PlannedHwpt* planned = nullptr;
  const Scene* scene = nullptr;          // of the VM whose IOAS it is in
  std::vector<std::size_t> devices;      // that are assigned to this VM, ascending
  std::vector<const Item*> items;        // that these belong to
  std::optional<std::size_t> allocator;  // when it is assigned to this VM
  std::optional<HwptQuantities> hwpt;    // what the law makes of allocator and flags

  bool holds(std::size_t device) const;
};

// placement, groups
std::vector<Seat> check_placement(const Court& court);
// attributes, acceptance
void check_attributes(const Court& court, const std::vector<Seat>& seats);
// usable, needs, policy, domain-ids
void check_wishes(const Court& court, const std::vector<Seat>& seats);
// ioas
void check_ioas(const Court& court, const std::vector<Seat>& seats);
// kvm
void check_kvm(const Court& court);
// resources, objectives
void check_resources(const Court& court, const std::vector<Seat>& seats);
// optimality
void check_optimality(const Court& court);
// frozen
void check_frozen(const Court& court);
// foresight: that what is promised is expected
void check_promises(const Court& court);
// The request and the plan as if everything promised had been plugged.
Request looking_ahead(Request request, const Plan& plan);
Plan looking_ahead(Plan plan);
// steps
void check_steps(const Court& court);
// joining. Requires: steps that lead somewhere, else it says nothing
void check_joining(const Court& court, const std::vector<Seat>& seats);
// infeasible: no placement exists in this world
void check_no_placement(const Court& court);

// The following look at the documents as they are, unknown facts included.

// interface, fingerprint, vms
void check_identity(const Plan& plan, const Request& request, const Law& law, Judgement& judgement);
// assumptions
void check_assumptions(const Plan& plan, const Request& request, const Law& law, Judgement& judgement);
// infeasible: the answer has its parts
void check_conflict(const Plan& plan, const Request& request, const Law& law, Judgement& judgement);
// undecided
void check_undecided(const Plan& plan, const Request& request, Judgement& judgement);

}  // namespace ioplan::check
