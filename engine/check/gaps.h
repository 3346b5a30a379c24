// Facts that the documents lack and that have no stock default, and requests in which they are filled in.
//
// The judge never guesses: it tries the values that the fact tables offer (model/facts.cc), any unit for a device
// whose unit is unknown, its own group or any existing one for a device whose group is unknown, either CPU vendor.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/model/request.h"

namespace ioplan::check {

struct Gap {
  std::string path;                                 // "iommus.dmar0.ecap"
  std::vector<std::string> values;                  // as the user would write them
  std::function<void(Request&, std::size_t)> fill;  // with the value of this number
};

// The gaps behind the assigned devices of all VMs and the devices of their groups, in a fixed order.
std::vector<Gap> gaps_of(const Request& request);

// Does `path` name a thing and a fact that the documents could state?
bool nameable(const Request& request, const std::string& path);

// It does, the documents do not state it, and a stock machine's value stands in for it.
bool defaulted(const Request& request, const std::string& path);

// It does, the documents do not state it, and nothing stands in for it.
bool unknown(const Request& request, const std::string& path);

struct Completion {
  Request request;
  std::string text;  // "`iommus.dmar0.ecap` = 0x0"; empty when nothing was missing
};

struct Completions {
  std::vector<Completion> all;
  bool exhaustive = true;  // every combination is there
};

// At most `budget` combinations: all of them, or each fact on its own against two backgrounds.
Completions completions_of(const Request& request, std::uint64_t budget);

}  // namespace ioplan::check
