// What a bound device's IOMMU says of itself against what the host document says: a plan made for other registers is a
// plan for another machine. Only bits that the uAPI lets user space rely on are compared (KR 1.3): all of Intel's CAP
// and ECAP; of AMD's EFR and the SMMUv3's IDRs the documented fields. AMD's driver tells what all of its units have in
// common. Held by tests/iommufd_backend_test.cc.
#pragma once

#include "backends/iommufd/calls.h"
#include "engine/model/host.h"

namespace ioplan::iommufd {

// Errors name both values. A device or register that the document does not know, and an IOMMU that tells nothing, pass.
Result<void> compare_registers(const HwInfo& seen, const Host& host, std::string_view device);

}  // namespace ioplan::iommufd
