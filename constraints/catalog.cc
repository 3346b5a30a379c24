#include "constraints/catalog.h"

#include "constraints/rules/allocation/alloc_dirty_tracking.h"
#include "constraints/rules/allocation/alloc_flag_combination.h"
#include "constraints/rules/allocation/alloc_levels.h"
#include "constraints/rules/allocation/alloc_nest_parent.h"
#include "constraints/rules/allocation/alloc_pasid.h"
#include "constraints/rules/allocation/alloc_stage_1.h"
#include "constraints/rules/allocation/alloc_stage_2.h"
#include "constraints/rules/allocation/alloc_table.h"
#include "constraints/rules/allocation/alloc_width.h"
#include "constraints/rules/allocation/riscv_alloc_svpbmt.h"
#include "constraints/rules/allocation/type1_alloc_flags.h"
#include "constraints/rules/allocation/virtio_alloc_granule.h"
#include "constraints/rules/amd/dirty_tracking.h"
#include "constraints/rules/coherency/mediated.h"
#include "constraints/rules/coherency/required.h"
#include "constraints/rules/coherency/safe.h"
#include "constraints/rules/coherency/strict.h"
#include "constraints/rules/core/automatic.h"
#include "constraints/rules/core/domain_ids.h"
#include "constraints/rules/core/group.h"
#include "constraints/rules/core/instance.h"
#include "constraints/rules/core/owner.h"
#include "constraints/rules/intel/first_stage_coherent_walk.h"
#include "constraints/rules/intel/first_stage_levels.h"
#include "constraints/rules/intel/first_stage_page_sizes.h"
#include "constraints/rules/intel/first_stage_snoop_control.h"
#include "constraints/rules/intel/first_stage_support.h"
#include "constraints/rules/intel/first_stage_width.h"
#include "constraints/rules/intel/first_stage_write_buffer.h"
#include "constraints/rules/intel/second_stage_coherent_walk.h"
#include "constraints/rules/intel/second_stage_dirty_tracking.h"
#include "constraints/rules/intel/second_stage_levels.h"
#include "constraints/rules/intel/second_stage_nest_parent.h"
#include "constraints/rules/intel/second_stage_page_sizes.h"
#include "constraints/rules/intel/second_stage_snoop_control.h"
#include "constraints/rules/intel/second_stage_support.h"
#include "constraints/rules/intel/second_stage_width.h"
#include "constraints/rules/intel/second_stage_write_buffer.h"
#include "constraints/rules/ioas/access_alignment.h"
#include "constraints/rules/ioas/alignment.h"
#include "constraints/rules/ioas/aperture.h"
#include "constraints/rules/ioas/granule.h"
#include "constraints/rules/ioas/read_only.h"
#include "constraints/rules/lifecycle/additive.h"
#include "constraints/rules/lifecycle/frozen.h"
#include "constraints/rules/lifecycle/guest_visible.h"
#include "constraints/rules/lifecycle/kvm_verdict.h"
#include "constraints/rules/lifecycle/live.h"
#include "constraints/rules/lifecycle/promise.h"
#include "constraints/rules/lifecycle/substitute.h"
#include "constraints/rules/lifecycle/unplug_coherency.h"
#include "constraints/rules/mock/dirty_tracking.h"
#include "constraints/rules/needs/dirty_tracking.h"
#include "constraints/rules/needs/nest_parent.h"
#include "constraints/rules/needs/p2p.h"
#include "constraints/rules/needs/pasid.h"
#include "constraints/rules/policy/assumptions.h"
#include "constraints/rules/policy/cache_coherency.h"
#include "constraints/rules/policy/dirty_tracking.h"
#include "constraints/rules/policy/limit.h"
#include "constraints/rules/policy/nest_parent.h"
#include "constraints/rules/policy/page_size.h"
#include "constraints/rules/policy/pasid.h"
#include "constraints/rules/policy/separate.h"
#include "constraints/rules/policy/together.h"
#include "constraints/rules/riscv/mode.h"
#include "constraints/rules/s390/dma_range.h"
#include "constraints/rules/smmuv3/cache_coherency.h"
#include "constraints/rules/type1/cache_coherency.h"
#include "constraints/rules/type1/first_fit.h"
#include "constraints/rules/type1/group.h"
#include "constraints/rules/type1/mediated.h"
#include "constraints/rules/type1/operations.h"
#include "constraints/rules/type1/page_sizes.h"
#include "constraints/rules/type1/reserved_regions.h"
#include "constraints/rules/usable/assumed_coherency.h"
#include "constraints/rules/usable/cache_coherency.h"
#include "constraints/rules/usable/capable_op.h"
#include "constraints/rules/usable/direct_region.h"
#include "constraints/rules/usable/dma_coherency.h"
#include "constraints/rules/usable/enforceable.h"
#include "constraints/rules/usable/isolated_msi.h"
#include "constraints/rules/usable/msi_windows.h"
#include "constraints/rules/usable/pasid_attach.h"
#include "constraints/rules/usable/pasid_width.h"
#include "constraints/rules/usable/reserved_regions.h"

namespace ioplan {

namespace {

constexpr const Rule* kCatalog[] = {
    &rules::usable_capable_op,
    &rules::usable_cache_coherency,
    &rules::usable_dma_coherency,
    &rules::usable_assumed_coherency,
    &rules::usable_enforceable,
    &rules::usable_msi_windows,
    &rules::usable_reserved_regions,
    &rules::usable_isolated_msi,
    &rules::usable_direct_region,
    &rules::usable_pasid_width,
    &rules::usable_pasid_attach,
    &rules::type1_reserved_regions,
    &rules::alloc_flag_combination,
    &rules::alloc_dirty_tracking,
    &rules::alloc_nest_parent,
    &rules::alloc_pasid,
    &rules::alloc_stage_1,
    &rules::alloc_stage_2,
    &rules::alloc_width,
    &rules::alloc_levels,
    &rules::alloc_table,
    &rules::virtio_alloc_granule,
    &rules::riscv_alloc_svpbmt,
    &rules::type1_alloc_flags,
    &rules::ioas_aperture,
    &rules::ioas_alignment,
    &rules::ioas_granule,
    &rules::ioas_read_only,
    &rules::ioas_access_alignment,
    &rules::needs_dirty_tracking,
    &rules::needs_nest_parent,
    &rules::needs_pasid,
    &rules::core_owner,
    &rules::core_instance,
    &rules::type1_operations,
    &rules::type1_cache_coherency,
    &rules::intel_first_stage_support,
    &rules::intel_first_stage_coherent_walk,
    &rules::intel_first_stage_levels,
    &rules::intel_first_stage_page_sizes,
    &rules::intel_first_stage_write_buffer,
    &rules::intel_first_stage_snoop_control,
    &rules::intel_first_stage_width,
    &rules::intel_second_stage_dirty_tracking,
    &rules::intel_second_stage_nest_parent,
    &rules::intel_second_stage_support,
    &rules::intel_second_stage_coherent_walk,
    &rules::intel_second_stage_width,
    &rules::intel_second_stage_levels,
    &rules::intel_second_stage_page_sizes,
    &rules::intel_second_stage_write_buffer,
    &rules::intel_second_stage_snoop_control,
    &rules::amd_dirty_tracking,
    &rules::smmuv3_cache_coherency,
    &rules::riscv_mode,
    &rules::s390_dma_range,
    &rules::mock_dirty_tracking,
    &rules::coherency_safe,
    &rules::coherency_strict,
    &rules::coherency_required,
    &rules::policy_page_size,
    &rules::policy_dirty_tracking,
    &rules::policy_nest_parent,
    &rules::policy_pasid,
    &rules::policy_cache_coherency,
    &rules::policy_separate,
    &rules::policy_together,
    &rules::policy_limit,
    &rules::policy_assumptions,
    &rules::core_group,
    &rules::core_domain_ids,
    &rules::core_automatic,
    &rules::coherency_mediated,
    &rules::needs_p2p,
    &rules::type1_mediated,
    &rules::type1_group,
    &rules::type1_first_fit,
    &rules::type1_page_sizes,
    &rules::lifecycle_frozen,
    &rules::lifecycle_additive,
    &rules::lifecycle_kvm_verdict,
    &rules::lifecycle_unplug_coherency,
    &rules::lifecycle_promise,
    &rules::lifecycle_guest_visible,
    &rules::lifecycle_substitute,
    &rules::lifecycle_live,
};

}  // namespace

std::span<const Rule* const> catalog() { return kCatalog; }

const Rule* find_rule(std::string_view name) {
  for (const Rule* rule : catalog()) {
    if (rule->name == name) return rule;
  }
  return nullptr;
}

}  // namespace ioplan
