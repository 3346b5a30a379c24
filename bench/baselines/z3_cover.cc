#include <z3++.h>

#include "bench/baselines/baseline.h"

namespace ioplan::bench {

Counted z3_cover(const CoverInstance& instance, unsigned rlimit) {
  z3::context context;
  z3::optimize optimize(context);
  z3::params params(context);
  params.set("rlimit", rlimit);
  optimize.set(params);

  const int slots = static_cast<int>(instance.elements);
  const int configurations = static_cast<int>(instance.candidates.size());
  std::vector<z3::expr> slot_of, configuration_of;
  for (int e = 0; e < slots; ++e) {
    slot_of.push_back(context.int_const(("slot" + std::to_string(e)).c_str()));
    configuration_of.push_back(context.int_const(("configuration" + std::to_string(e)).c_str()));
    optimize.add(slot_of.back() >= 0 && slot_of.back() < slots);
    optimize.add(configuration_of.back() >= 0 && configuration_of.back() < configurations);
  }
  const z3::expr highest = context.int_const("highest");
  for (std::size_t e = 0; e < instance.elements; ++e) {
    optimize.add(slot_of[e] <= highest);
    for (std::size_t h = 0; h < instance.elements; ++h) {
      z3::expr_vector accepted(context);
      for (int c = 0; c < configurations; ++c) {
        if (instance.candidates[static_cast<std::size_t>(c)].accepts[e]) accepted.push_back(configuration_of[h] == c);
      }
      optimize.add(z3::implies(slot_of[e] == static_cast<int>(h), z3::mk_or(accepted)));
    }
  }
  for (const auto& [a, b] : instance.apart) optimize.add(slot_of[a] != slot_of[b]);
  const z3::optimize::handle objective = optimize.minimize(highest);
  const z3::check_result result = optimize.check();
  if (result == z3::unsat) return {};
  const z3::expr upper = optimize.upper(objective);
  if (!upper.is_numeral()) return {instance.elements, false};
  return {static_cast<std::uint64_t>(upper.get_numeral_int64()) + 1, result == z3::sat};
}

}  // namespace ioplan::bench
