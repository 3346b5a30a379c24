/* drivers/iommu/intel, behind the seam of answers.h. What touches hardware or other devices' state does nothing. */
#define CONFIG_X86 1
#define CONFIG_INTEL_IOMMU 1
#include <linux/generic_pt/iommu.h>

struct intel_iommu;

/* What the command line sets elsewhere. */
static bool iommu_dma_forcedac;
#define iommu_set_dma_strict() ((void)0)

#define dev_is_pci(dev) true
#define pci_real_dma_dev(pdev) (pdev)
#define to_pci_dev(dev) ((struct pci_dev*)(dev))
#define dmar_platform_optin() false
#define device_block_translation(dev) ((void)(dev))
#define iopf_for_domain_replace(domain, old, dev) ((void)(old), 0)
#define dmar_domain_attach_device(domain, dev) 0

#include "intel.inc"

#include "iommufd.h"

static struct intel_iommu iommus[JUDGE_UNITS];
static struct device_domain_info infos[JUDGE_UNITS];

static void boot(const struct judge_host* host) {
  char options[32];
  judge_forget_hwpt();
  intel_iommu_superpage = 1;
  rwbf_quirk = host->rwbf_quirk;
  snprintf(options, sizeof(options), "on,%s,%s", host->scalable_mode ? "sm_on" : "sm_off",
           host->superpages_off ? "sp_off" : "");
  intel_iommu_setup(options);
  judge_place_foreign();
  for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
    iommus[i].cap = host->units[i].cap;
    iommus[i].ecap = host->units[i].ecap;
    judge_place(i, &intel_iommu_ops, &infos[i]);
    infos[i] = (struct device_domain_info){.iommu = &iommus[host->one_unit ? 0 : i], .dev = &judge_machines[i].device};
  }
}

static void describe(unsigned unit, struct judge_device* answer) {
  *answer = (struct judge_device){.usable = 1};
  judge_describe(unit, answer);
}

static void judge_read_domain(struct iommu_domain* base, struct judge_hwpt* answer) {
  struct dmar_domain* domain = to_dmar_domain(base);
  struct pt_iommu_x86_64_hw_info first;
  struct pt_iommu_vtdss_hw_info second;
  unsigned int features;
  answer->stage = intel_domain_is_fs_paging(domain) ? 1 : 2;
  if (answer->stage == 1) {
    pt_iommu_x86_64_hw_info(&domain->fspt, &first);
    answer->levels = first.levels;
    answer->address_bits = domain->fspt.x86_64_pt.common.max_vasz_lg2;
    features = domain->fspt.x86_64_pt.common.features;
  } else {
    pt_iommu_vtdss_hw_info(&domain->sspt, &second);
    answer->levels = second.aw + 2;
    answer->address_bits = domain->sspt.vtdss_pt.common.max_vasz_lg2;
    features = domain->sspt.vtdss_pt.common.features;
    answer->takes_read_only = !(features & BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE));
  }
  answer->coherent_walk = !(features & BIT(PT_FEAT_DMA_INCOHERENT));
  answer->sync_map = domain->iotlb_sync_map;
}

const struct judge judge = {"intel", boot, describe, judge_allocate, judge_attach};
