#include "constraints/drivers/fields.h"

#include <array>

namespace ioplan::drivers {

namespace {

constexpr UnitFact kCap = UnitFact::cap, kEcap = UnitFact::ecap;

constexpr auto kIntel = std::to_array<Field>({
    {"ND", kCap, 0, 3, "domain ids: 2^(4 + 2 ND)"},
    {"AFL", kCap, 3, 1, ""},
    {"RWBF", kCap, 4, 1, "writes to tables need a flush"},
    {"PLMR", kCap, 5, 1, ""},
    {"PHMR", kCap, 6, 1, ""},
    {"CM", kCap, 7, 1, "caching mode: this is a guest's unit"},
    {"SAGAW", kCap, 8, 5, "second-stage levels: 2 three, 4 four, 8 five"},
    {"MGAW", kCap, 16, 6, "guest address width, less one"},
    {"ZLR", kCap, 22, 1, ""},
    {"ISOCH", kCap, 23, 1, ""},
    {"FRO", kCap, 24, 10, ""},
    {"SLLPS", kCap, 34, 4, "second-stage pages: 1 2MiB, 2 1GiB"},
    {"PSI", kCap, 39, 1, ""},
    {"NFR", kCap, 40, 8, ""},
    {"MAMV", kCap, 48, 6, ""},
    {"DWD", kCap, 54, 1, ""},
    {"DRD", kCap, 55, 1, ""},
    {"FL1GP", kCap, 56, 1, "first-stage 1GiB pages"},
    {"PI", kCap, 59, 1, ""},
    {"FL5LP", kCap, 60, 1, "first-stage tables of five levels"},
    {"ECMDS", kCap, 61, 1, ""},
    {"ESIRTPS", kCap, 62, 1, ""},
    {"ESRTPS", kCap, 63, 1, ""},
    {"C", kEcap, 0, 1, "walks of legacy tables are coherent"},
    {"QI", kEcap, 1, 1, ""},
    {"DT", kEcap, 2, 1, "ATS"},
    {"IR", kEcap, 3, 1, "interrupt remapping"},
    {"EIM", kEcap, 4, 1, ""},
    {"PT", kEcap, 6, 1, "identity mapping"},
    {"SC", kEcap, 7, 1, "can block no-snoop"},
    {"IRO", kEcap, 8, 10, ""},
    {"MHMV", kEcap, 20, 4, ""},
    {"ECS", kEcap, 24, 1, ""},
    {"MTS", kEcap, 25, 1, ""},
    {"NEST", kEcap, 26, 1, "nested translation"},
    {"DIS", kEcap, 27, 1, ""},
    {"PASID28", kEcap, 28, 1, ""},
    {"PRS", kEcap, 29, 1, "page requests"},
    {"ERS", kEcap, 30, 1, ""},
    {"SRS", kEcap, 31, 1, ""},
    {"NWFS", kEcap, 33, 1, ""},
    {"EAFS", kEcap, 34, 1, ""},
    {"PSS", kEcap, 35, 5, "PASID width, less one"},
    {"PASID", kEcap, 40, 1, "PASIDs"},
    {"DIT", kEcap, 41, 1, ""},
    {"PDS", kEcap, 42, 1, ""},
    {"SMTS", kEcap, 43, 1, "scalable mode"},
    {"VCS", kEcap, 44, 1, ""},
    {"SLADS", kEcap, 45, 1, "second-stage dirty tracking"},
    {"SLTS", kEcap, 46, 1, "second-stage tables in scalable mode"},
    {"FLTS", kEcap, 47, 1, "first-stage tables"},
    {"SMPWCS", kEcap, 48, 1, "walks of scalable-mode tables are coherent"},
    {"RPS", kEcap, 49, 1, ""},
    {"PMS", kEcap, 51, 1, ""},
    {"ADMS", kEcap, 52, 1, ""},
    {"RPRIVS", kEcap, 53, 1, ""},
});

constexpr UnitFact kEfr = UnitFact::efr, kEfr2 = UnitFact::efr2;

constexpr auto kAmd = std::to_array<Field>({
    {"PreFSup", kEfr, 0, 1, ""},
    {"PPRSup", kEfr, 1, 1, "page requests"},
    {"XTSup", kEfr, 2, 1, ""},
    {"NXSup", kEfr, 3, 1, ""},
    {"GTSup", kEfr, 4, 1, "guest (v2) tables"},
    {"IASup", kEfr, 6, 1, ""},
    {"GASup", kEfr, 7, 1, ""},
    {"HESup", kEfr, 8, 1, ""},
    {"PCSup", kEfr, 9, 1, ""},
    {"HATS", kEfr, 10, 2, "host table levels: 0 four, 1 five, 2 six"},
    {"GATS", kEfr, 12, 2, "guest table levels: 0 four, 1 five"},
    {"GLXSup", kEfr, 14, 2, "levels of GCR3 tables, less one"},
    {"SmiFSup", kEfr, 16, 2, ""},
    {"SmiFRC", kEfr, 18, 3, ""},
    {"GAMSup", kEfr, 21, 3, ""},
    {"DualPprLogSup", kEfr, 24, 2, ""},
    {"DualEventLogSup", kEfr, 28, 2, ""},
    {"PASmax", kEfr, 32, 5, "PASID width, less one"},
    {"USSup", kEfr, 37, 1, ""},
    {"DevTblSegSup", kEfr, 38, 2, ""},
    {"PprOvrflwEarlySup", kEfr, 40, 1, ""},
    {"PPRAutoRspSup", kEfr, 41, 1, ""},
    {"MarcSup", kEfr, 42, 2, ""},
    {"BlkStopMrkSup", kEfr, 44, 1, ""},
    {"PerfOptSup", kEfr, 45, 1, ""},
    {"MsiCapMmioSup", kEfr, 46, 1, ""},
    {"GIoSup", kEfr, 48, 1, ""},
    {"HASup", kEfr, 49, 1, "host access flag"},
    {"EPHSup", kEfr, 50, 1, ""},
    {"AttrFWSup", kEfr, 51, 1, ""},
    {"HDSup", kEfr, 52, 1, "host dirty tracking"},
    {"InvIotlbTypeSup", kEfr, 54, 1, ""},
    {"GAUpdateDisSup", kEfr, 61, 1, ""},
    {"ForcePhyDestSup", kEfr, 62, 1, ""},
    {"SNPSup", kEfr, 63, 1, "SEV-SNP"},
    {"SNPAVICSup", kEfr2, 5, 3, ""},
    {"GCR3TRPMode", kEfr2, 3, 1, "GCR3 table pointers are guest physical"},
    {"HTRangeIgnore", kEfr2, 11, 1, "the HyperTransport hole can be used"},
});

constexpr UnitFact kIdr0 = UnitFact::idr0, kIdr1 = UnitFact::idr1, kIdr3 = UnitFact::idr3, kIdr5 = UnitFact::idr5;

constexpr auto kSmmuv3 = std::to_array<Field>({
    {"S2P", kIdr0, 0, 1, "stage 2"},
    {"S1P", kIdr0, 1, 1, "stage 1"},
    {"TTF", kIdr0, 2, 2, "table formats: 2 AArch64, 3 both"},
    {"COHACC", kIdr0, 4, 1, "walks are coherent"},
    {"HTTU", kIdr0, 6, 2, "hardware updates: 1 access, 2 access and dirty"},
    {"ATS", kIdr0, 10, 1, "ATS"},
    {"ASID16", kIdr0, 12, 1, ""},
    {"MSI", kIdr0, 13, 1, ""},
    {"PRI", kIdr0, 16, 1, "page requests"},
    {"VMID16", kIdr0, 18, 1, "virtual machine ids of 16 bits"},
    {"TTENDIAN", kIdr0, 21, 2, ""},
    {"STALL_MODEL", kIdr0, 24, 2, ""},
    {"ST_LEVEL", kIdr0, 27, 2, ""},
    {"SIDSIZE", kIdr1, 0, 6, ""},
    {"SSIDSIZE", kIdr1, 6, 5, "PASID width"},
    {"ATTR_TYPES_OVR", kIdr1, 27, 1, ""},
    {"FWB", kIdr3, 8, 1, "stage 2 can force write-back"},
    {"RIL", kIdr3, 10, 1, ""},
    {"BBML", kIdr3, 11, 2, "page sizes can change under DMA"},
    {"OAS", kIdr5, 0, 3, "output bits: 0 32, 1 36, 2 40, 3 42, 4 44, 5 48, 6 52"},
    {"GRAN4K", kIdr5, 4, 1, "4KiB granule"},
    {"GRAN16K", kIdr5, 5, 1, "16KiB granule"},
    {"GRAN64K", kIdr5, 6, 1, "64KiB granule"},
    {"VAX", kIdr5, 10, 2, "input bits: 1 52, else 48"},
});

}  // namespace

std::span<const Field> fields_of(Driver driver) {
  switch (driver) {
    case Driver::intel: return kIntel;
    case Driver::amd: return kAmd;
    case Driver::smmuv3: return kSmmuv3;
    default: return {};
  }
}

}  // namespace ioplan::drivers
