#include "engine/apply/container_record.h"

#include <algorithm>

namespace ioplan {

namespace {

bool holds(const RecordedDomain& domain, const std::string& group) {
  return std::ranges::find(domain.groups, group) != domain.groups.end();
}

// The domain lacks some of its groups, and has no others: they join it when nothing newer is there.
bool only_lacks(const RecordedDomain& now, const RecordedDomain& was) {
  return now.hwpt == was.hwpt && std::ranges::all_of(now.groups, [&](const auto& g) { return holds(was, g); });
}

bool alike(const RecordedDomain& a, const RecordedDomain& b) {
  return a.opener == b.opener && a.groups.size() == b.groups.size() && only_lacks(a, b);
}

void let_join(const RecordedDomain& domain, std::vector<Regrouping>& way) {
  way.push_back({true, domain.opener, domain.hwpt});
  for (const std::string& g : domain.groups) {
    if (g != domain.opener) way.push_back({true, g, domain.hwpt});
  }
  if (!holds(domain, domain.opener)) way.push_back({false, domain.opener, domain.hwpt});
}

}  // namespace

void ContainerRecord::join(const std::string& hwpt, const std::string& group) {
  const auto it = std::ranges::find(domains_, hwpt, &RecordedDomain::hwpt);
  if (it != domains_.end()) {
    it->groups.push_back(group);
  } else {
    domains_.push_back({hwpt, group, {group}});
  }
}

void ContainerRecord::leave(const std::string& group) {
  for (RecordedDomain& d : domains_) std::erase(d.groups, group);
  std::erase_if(domains_, [](const RecordedDomain& d) { return d.groups.empty(); });
}

std::vector<Regrouping> way_back(const ContainerRecord& now, const ContainerRecord& was) {
  const auto &here = now.domains(), &there = was.domains();
  const auto same = std::ranges::mismatch(here, there, alike);
  std::size_t first = static_cast<std::size_t>(same.in1 - here.begin());
  const bool stays = first < here.size() && first < there.size() && only_lacks(here[first], there[first]);
  std::vector<Regrouping> way;
  for (std::size_t d = here.size(); d-- > first + (stays ? 1 : 0);) {
    for (const std::string& g : here[d].groups) way.push_back({false, g, here[d].hwpt});
  }
  if (stays) {
    for (const std::string& g : there[first].groups) {
      if (!holds(here[first], g)) way.push_back({true, g, there[first].hwpt});
    }
    ++first;
  }
  const bool empties = first == 0;
  for (std::size_t d = first; d < there.size(); ++d) {
    let_join(there[d], way);
    way.back().maps_again = empties && d == 0;
  }
  return way;
}

}  // namespace ioplan
