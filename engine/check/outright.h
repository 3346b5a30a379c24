// What no choice of HWPTs can cure: wishes of a VM that its devices or the kernel rule out.
//
// Devices that are to reach each other's BARs need IOMMUs of their own and a kernel that maps BARs into an IOAS. A
// mediated device makes KVM non-coherent, and pins whole pages of the kernel.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/check/scene.h"

namespace ioplan::check {

struct Outright {
  std::string_view obligation;
  std::vector<std::string> subjects;
  std::string text;
};

std::vector<Outright> outright_refusals(const World& world, const Scene& scene);

}  // namespace ioplan::check
