// What this process and this machine must have to spare before a plan's memory is pinned, with the numbers that are
// needed. Reads, and changes nothing. Held by tests/iommufd_backend_test.cc.
#pragma once

#include <optional>

#include "backends/vfio/system.h"
#include "engine/model/plan.h"

namespace ioplan::vfio {

// The size of the pages that back an IOAS's memory, in bytes: the plan's, at least the kernel's.
std::uint64_t backing_page(System& system, const PlannedIoas& ioas);

// Whether RLIMIT_MEMLOCK allows so many bytes; those that the plan pins, when none are named. CAP_IPC_LOCK lifts it
// (pages.c iopt_alloc_pages).
Result<void> require_memlock(System& system, std::uint64_t bytes);
Result<void> require_memlock(System& system, const Plan& plan);

// The same for VFIO type1, which counts what this process has locked already (vfio_lock_acct, __account_locked_vm).
Result<void> require_memlock_of_process(System& system, const Plan& plan);

// Locked memory of this process, bytes; nothing when /proc does not tell.
std::optional<std::uint64_t> locked_bytes(System& system);

// Whether enough huge pages are free, for every size that the plan's memory is backed by.
Result<void> require_huge_pages(System& system, const Plan& plan);

}  // namespace ioplan::vfio
