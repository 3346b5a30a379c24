/* drivers/iommu/amd, behind the seam of answers.h. The driver boots on a table of firmware that is made here. */
#define CONFIG_X86 1
#define CONFIG_AMD_IOMMU 1
#define CONFIG_KVM_AMD_SEV 1
#include <linux/generic_pt/iommu.h>

#include "answers.h"

static const struct judge_host* booting;

/* Firmware. */
struct acpi_table_header;
static u32 ivrs[16];
#define acpi_status int
#define AE_NOT_FOUND 5
#define ACPI_FAILURE(status) ((status) != 0)
#define acpi_get_table(name, instance, table) ((void)(*(table) = (struct acpi_table_header*)ivrs), 0)
#define acpi_put_table(table) ((void)(table))
#define acpi_format_exception(status) "none"
#define check_ivrs_checksum(table) 0
#define get_highest_supported_ivhd_type(table) 0x11
static int judge_read_ivrs(void);
#define init_iommu_all(table) judge_read_ivrs()
#define init_memory_definitions(table) 0
#define init_device_table() ((void)0)

/* Processor and platform. */
#define X86_FEATURE_CX16 0
#define X86_FEATURE_LA57 1
#define CC_ATTR_HOST_SEV_SNP 0
#define boot_cpu_has(feature) true
#define cpu_feature_enabled(feature) (booting->la57)
#define cc_platform_has(attribute) (booting->wants_snp)
#define cc_platform_clear(attribute) ((void)0)
#define snp_rmptable_init() 0
#define no_iommu 0
#define iommu_default_passthrough() false
#define iommu_set_dma_strict() ((void)0)
#define is_kdump_kernel() false
#define disable_iommus() ((void)0)
#define DUMP_printk(...) ((void)0)

/* What touches hardware or domain ids. */
static struct list_head amd_iommu_list;
#define amd_iommu_pdom_id_alloc() 1
#define amd_iommu_pdom_id_free(id) ((void)0)
#define attach_device(dev, domain) 0
#define detach_device(dev) ((void)0)

#include "amd.inc"

#include "iommufd.h"

static struct amd_iommu iommus[JUDGE_UNITS];
static struct iommu_dev_data device_data[JUDGE_UNITS];
static bool started;

static int judge_read_ivrs(void) {
  for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
    struct ivhd_header ivhd = {.efr_reg = booting->units[i].efr, .efr_reg2 = booting->units[i].efr2};
    iommus[i] = (struct amd_iommu){};
    list_add_tail(&iommus[i].list, &amd_iommu_list);
    early_iommu_features_init(&iommus[i], &ivhd);
  }
  amd_iommu_hatdis = booting->hatdis;
  get_global_efr();
  return 0;
}

static void forget_earlier_boot(void) {
  INIT_LIST_HEAD(&amd_iommu_list);
  amd_iommu_detected = true;
  amd_iommu_irq_remap = false;
  amd_iommu_pgtable = PD_MODE_V1;
  amd_iommu_gpt_level = PAGE_MODE_4_LEVEL;
  amd_iommu_pgsize_bitmap = AMD_IOMMU_PGSIZES;
  amd_iommu_hatdis = amd_iommu_snp_en = false;
  amd_iommu_efr = amd_iommu_efr2 = 0;
  amd_iommu_hpt_vasize = 0;
}

static void boot(const struct judge_host* host) {
  char options[64];
  judge_forget_hwpt();
  forget_earlier_boot();
  booting = host;
  ivrs[IOMMU_IVINFO_OFFSET / 4] = host->ivinfo;
  snprintf(options, sizeof(options), "%s,%s,%s", host->v2_tables ? "pgtbl_v2" : "pgtbl_v1",
           host->v2_page_sizes_only ? "v2_pgsizes_only" : "", host->nohugepages ? "nohugepages" : "");
  parse_amd_iommu_options(options);
  started = early_amd_iommu_init() == 0 && amd_iommu_pgtable != PD_MODE_NONE;
  iommu_snp_enable();
  judge_place_foreign();
  for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
    judge_place(i, &amd_iommu_ops, &device_data[i]);
    device_data[i] = (struct iommu_dev_data){.dev = &judge_machines[i].device};
    judge_machines[i].dev_iommu.iommu_dev = &iommus[host->one_unit ? 0 : i].iommu;
    iommus[i].iommu.ops = &amd_iommu_ops;
  }
}

static void describe(unsigned unit, struct judge_device* answer) {
  *answer = (struct judge_device){.usable = started, .snp = amd_iommu_snp_en};
  judge_describe(unit, answer);
}

static void judge_read_domain(struct iommu_domain* base, struct judge_hwpt* answer) {
  struct protection_domain* domain = to_pdomain(base);
  struct pt_iommu_amdv1_hw_info host;
  struct pt_iommu_x86_64_hw_info guest;
  answer->stage = domain->pd_mode == PD_MODE_V1 ? 2 : 1;
  if (answer->stage == 2) {
    pt_iommu_amdv1_hw_info(&domain->amdv1, &host);
    answer->levels = host.mode;
    answer->address_bits = domain->amdv1.amdpt.common.max_vasz_lg2;
  } else {
    pt_iommu_x86_64_hw_info(&domain->amdv2, &guest);
    answer->levels = guest.levels;
    answer->address_bits = domain->amdv2.x86_64_pt.common.max_vasz_lg2;
  }
}

const struct judge judge = {"amd", boot, describe, judge_allocate, judge_attach};
