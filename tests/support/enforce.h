// A question under some of its rules only: is there a plan when nothing but these refusals counts?
//
// The conflict of an infeasible Plan claims two things: enforced alone it leaves no plan, and without any one of its
// members a plan appears. This evaluator checks them by trying every partition of every VM's groups and every template;
// it shares the law's rules and the Problem's facts with the explanation, but neither its search nor the cover.
//
// What a member means (engine/explain/conflict.cc says the same with its own code):
//   usable, group, attach, placement rules   the subject's group is subject to the rule
//   allocation rules                         devices that the law cannot tell from the subject cannot allocate by it
//   fit rules, policy.limit                  the VM named is subject to the rule
//   policy.together, policy.separate         the policy rule named; core.automatic: the devices named share
//   coherency.mediated, needs.p2p, ...       rules about a VM as a whole, judged by the request itself
//   core.domain-ids                          HWPTs draw from the domain ids of the units named
#pragma once

#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan::enforce {

// Requires: complete facts, preferences do not count, at most 9 groups a VM.
class Question {
 public:
  explicit Question(const Request& request);
  ~Question();
  Question(const Question&) = delete;
  Question& operator=(const Question&) = delete;

  bool plan_exists(const std::vector<Conflict>& enforced) const;

 private:
  struct State;
  State* state_;
};

}  // namespace ioplan::enforce
