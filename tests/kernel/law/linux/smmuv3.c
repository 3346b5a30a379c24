/*
 * drivers/iommu/arm/arm-smmu-v3 and io-pgtable-arm, behind the seam of answers.h. The driver probes registers that are
 * made here. The kernel's page size and VA_BITS, constants of an arm64 kernel, are variables.
 */
#define CONFIG_ARM64 1
#define CONFIG_IOMMU_IO_PGTABLE_LPAE 1
#define CONFIG_PCI_ATS 1
#define CONFIG_PCI_PRI 1
#include <linux/iommu.h>

#include "answers.h"

static unsigned int judge_va_bits;
#define VA_BITS judge_va_bits
#define ARM64_HAS_VIRT_HOST_EXTN 0
#define cpus_have_cap(capability) true
#define readl_relaxed(address) (*(const u32*)(address))
#define dma_set_mask_and_coherent(dev, mask) 0
#define to_pci_dev(dev) ((struct pci_dev*)(dev))
#define pci_disable_ats(pdev) ((void)(pdev))
#define dev_is_pci(dev) true
#define pci_ats_supported(pdev) true

/* Tables of devices and their invalidation: hardware's own, no part of any decision. */
void iommu_free_pages(void* virt);
void* iommu_alloc_pages_node_sz(int nid, gfp_t gfp, size_t size);
int iommu_pages_start_incoherent(void* virt, struct device* dma_dev);
#define iommu_pages_free_incoherent(virt, dev) iommu_free_pages(virt)
#define arm_smmu_alloc_cd_ptr(master, ssid) ((void*)1)
#define arm_smmu_attach_prepare_invs(state, domain) 0
#define arm_smmu_install_new_domain_invs(state) ((void)(state))
#define arm_smmu_make_s1_cd(target, master, domain) ((void)(target))
#define arm_smmu_write_cd_entry(master, ssid, entry, target) ((void)(entry))
#define arm_smmu_make_cdtable_ste(target, master, ats, s1dss) ((void)(target))
#define arm_smmu_make_s2_domain_ste(target, master, domain, ats) ((void)(target))
#define arm_smmu_install_ste_for_dev(master, target) ((void)(target))
#define arm_smmu_clear_cd(master, ssid) ((void)(master))
static void arm_smmu_tlb_inv_context(void* cookie) { (void)cookie; }

struct arm_smmu_attach_state;
static void arm_smmu_attach_commit(struct arm_smmu_attach_state* state);

#include "smmuv3.inc"

#include "iommufd.h"

static struct arm_smmu_device smmus[JUDGE_UNITS];
static struct arm_smmu_master masters[JUDGE_UNITS];
static bool started;

/* The device is not kept: every attachment is the first. */
static void arm_smmu_attach_commit(struct arm_smmu_attach_state* state) {
  struct arm_smmu_domain* domain = to_smmu_domain(judge_hwpt->common.domain);
  struct arm_smmu_master_domain *entry, *next;
  (void)state;
  list_for_each_entry_safe(entry, next, &domain->devices, devices_elm) free(entry);
  INIT_LIST_HEAD(&domain->devices);
}

/* What ACPI allows; a device tree says nothing of hardware updates. */
static u32 firmware_features(const struct judge_unit* unit) {
  const unsigned updates = unit->device_tree ? 0 : unit->firmware_updates;
  return (unit->coherent ? ARM_SMMU_FEAT_COHERENCY : 0) | (updates >= 1 ? ARM_SMMU_FEAT_HA : 0) |
         (updates >= 2 ? ARM_SMMU_FEAT_HD : 0) | (updates >= 3 ? ARM_SMMU_FEAT_HAFT : 0);
}

static bool probe(unsigned i, const struct judge_unit* unit) {
  u32 registers[16] = {};
  struct device device = {.of_node = unit->device_tree ? &registers : NULL};
  registers[ARM_SMMU_IDR0 / 4] = unit->idr0;
  registers[ARM_SMMU_IDR1 / 4] = unit->idr1;
  registers[ARM_SMMU_IDR3 / 4] = unit->idr3;
  registers[ARM_SMMU_IDR5 / 4] = unit->idr5;
  registers[ARM_SMMU_IIDR / 4] = unit->iidr;
  smmus[i] = (struct arm_smmu_device){.dev = &device, .base = registers, .features = firmware_features(unit)};
  const int error = arm_smmu_device_hw_probe(&smmus[i]);
  smmus[i].base = NULL;
  smmus[i].dev = NULL;
  return error == 0;
}

static void boot(const struct judge_host* host) {
  judge_forget_hwpt();
  judge_page_size = host->page_size;
  judge_va_bits = host->va_bits;
  started = true;
  judge_place_foreign();
  for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
    started &= probe(i, &host->units[i]);
    judge_place(i, &arm_smmu_ops, &masters[i]);
    masters[i] = (struct arm_smmu_master){.smmu = &smmus[host->one_unit ? 0 : i], .dev = &judge_machines[i].device};
    if (host->units[i].canwbs) judge_machines[i].fwspec.flags = IOMMU_FWSPEC_PCI_RC_CANWBS;
  }
}

static void describe(unsigned unit, struct judge_device* answer) {
  *answer = (struct judge_device){.usable = started,
                                  .nests = (masters[unit].smmu->features & ARM_SMMU_FEAT_NESTING) != 0,
                                  .features = masters[unit].smmu->features,
                                  .output_bits = masters[unit].smmu->oas};
  judge_describe(unit, answer);
}

static void judge_read_domain(struct iommu_domain* base, struct judge_hwpt* answer) {
  struct arm_smmu_domain* domain = to_smmu_domain(base);
  struct io_pgtable* table = io_pgtable_ops_to_pgtable(domain->pgtbl_ops);
  answer->stage = domain->stage == ARM_SMMU_DOMAIN_S1 ? 1 : 2;
  answer->levels = ARM_LPAE_MAX_LEVELS - io_pgtable_to_data(table)->start_level;
  answer->address_bits = table->cfg.ias;
}

const struct judge judge = {"smmuv3", boot, describe, judge_allocate, judge_attach};
