// Linux's /dev/iommu, asked through ioctls: VFIO cdevs for PCI devices, IOMMU_TEST_CMD for mock ones.
//
// A mock device is born attached (IOMMU_TEST_OP_MOCK_DOMAIN), so its bind attaches it to an IOAS of its own, its attach
// is a replace, and it cannot be detached. sim_subject.cc does the same.
#pragma once

#include <memory>

#include "engine/model/host.h"
#include "tests/kernel/guest/subject.h"

namespace ioplan::kernel_test {

// Opens /dev/iommu; aborts with a message when there is none.
std::unique_ptr<Subject> make_kernel_subject(const Host& host);

}  // namespace ioplan::kernel_test
