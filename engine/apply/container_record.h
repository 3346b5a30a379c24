// Who is in a type1 container, HWPT by HWPT as the steps name them, and how what was is made again.
//
// A group that has left does not simply come back: it would join the newest domain that takes it. The backends keep this
// record, so that the undo of a step can take away whoever is newer, let the group in, and let the others join again in
// the old order. Held by tests/type1_lifecycle_test.cc, where every step fails once.
#pragma once

#include <string>
#include <vector>

namespace ioplan {

struct RecordedDomain {
  std::string hwpt;
  std::string opener;               // the group that it was made for; it may have left
  std::vector<std::string> groups;  // that are in it; names of the backend's own

  friend bool operator==(const RecordedDomain&, const RecordedDomain&) = default;
};

class ContainerRecord {
 public:
  const std::vector<RecordedDomain>& domains() const { return domains_; }  // in the order of their making
  bool empty() const { return domains_.empty(); }

  void join(const std::string& hwpt, const std::string& group);
  void leave(const std::string& group);

 private:
  std::vector<RecordedDomain> domains_;
};

struct Regrouping {
  bool joins = false;  // else it leaves
  std::string group;
  std::string hwpt;
  bool maps_again = false;  // the container was empty, which took its mappings, and its first domain is made now

  friend bool operator==(const Regrouping&, const Regrouping&) = default;
};

// From one record to another. A group that only opens a domain joins, and leaves when others are in it.
std::vector<Regrouping> way_back(const ContainerRecord& now, const ContainerRecord& was);

}  // namespace ioplan
