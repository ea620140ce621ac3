package maps

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type port -type segment -type tenant -type tenant_flag -type locator_option -type source_rule -type subnet_value -type dscp -type mac_key -type bucket -type table_header -type record6 -type overflow_key -type lpm4_key -type lpm6_key -type nexthop -type adjacency -type set -type local -type locator -type counter -type walk_report -type sighting -type sight_kind -type abi -type limits -type space -type locator_value -type port_role -type port_flag -type segment_flag -type mac_kind -type nexthop_kind -type nexthop_flag -type nexthop_id -type adjacency_flag -type reason datapath ../bpf/datapath.bpf.c -- -O2 -g -Wall -Werror -Wno-address-of-packed-member -mcpu=v3 -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel watch ../bpf/watch.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
