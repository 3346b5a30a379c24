// Laws that are wrong on purpose: what shows that the comparison would notice.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernel/law/comparison.h"

namespace ioplan::judged {

struct Mutant {
  std::string name;
  LawUnderTest law;
};

LawUnderTest the_law();

// Each of the chosen rules left out (a strict one: asked of Linux too) and each refusing always; each compared
// attribute and capability with its lowest bit changed.
std::vector<Mutant> mutants_of(const LawUnderTest& law, const std::function<bool(const Rule&)>& chosen);

}  // namespace ioplan::judged
