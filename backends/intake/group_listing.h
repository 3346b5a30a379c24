// IOMMU groups as people list them: the scripts that go through /sys/kernel/iommu_groups and ask lspci, and what find, ls
// and tree print of that folder.
//
//   IOMMU Group 1:                                                   (a heading, then a device a line)
//           00:01.0 PCI bridge [0604]: Intel Corporation ... [8086:1901] (rev 07)
//   IOMMU Group 1 00:01.0 PCI bridge [0604]: ...                     (both on one line)
//   Group 1:        [8086:1901] [R] 00:01.0  PCI bridge  ...         (ids first)
//   /sys/kernel/iommu_groups/1/devices/0000:00:01.0                  (find)
//   /sys/kernel/iommu_groups/1/devices:                              (ls -lR)
//   lrwxrwxrwx 1 root root 0 ... 0000:00:01.0 -> ../../../../devices/pci0000:00/0000:00:01.0
//   ├── 1                                                            (tree)
//   .../devices/0000:00:01.0/iommu_group -> ../../../kernel/iommu_groups/1
//
// Held by tests/importers_test.cc and, on published listings, by tests/import_corpus_test.cc.
#pragma once

#include <string_view>
#include <vector>

#include "backends/intake/lspci.h"

namespace ioplan::intake {

struct GroupMember {
  std::uint64_t group = 0;
  LspciFunction function;  // `device` may be a platform device's name; description as far as the listing has one
};

std::vector<GroupMember> read_group_listing(std::string_view text);

// The number in "iommu_groups/7/": where a path says which group it is about. Takes up to the number.
std::optional<std::uint64_t> take_group_of_path(Cursor& at);

// The number in a heading: "IOMMU Group 7", "iommu group: 7", "Group 7:", "### Group 7 ###". Takes up to the number and a colon.
std::optional<std::uint64_t> take_group_heading(Cursor& at);

}  // namespace ioplan::intake
