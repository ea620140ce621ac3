package main

// Expressions use $instance, the gateways that are chosen, and $__rate_interval, which Grafana derives from the scrape
// interval and the width of a pixel.

const (
	forwarded = `instance=~"$instance",reason=~"fwd_.+"`
	passed    = `instance=~"$instance",reason=~"pass_.+"`
	dropped   = `instance=~"$instance",reason=~"drop_.+"`
	here      = `instance=~"$instance"`
)

func rate(metric, selector string) string {
	return "rate(" + metric + "{" + selector + "}[$__rate_interval])"
}

func sum(by, expr string) string { return "sum by (" + by + ") (" + expr + ")" }

// quantile of a histogram by some labels.
func quantile(q, by, metric string) string {
	if by != "" {
		by += ", "
	}
	return "histogram_quantile(" + q + ", " + sum(by+"le", rate(metric+"_bucket", here)) + ")"
}

var fill = sum("instance, table", "roam_table_entries{"+here+"} / roam_table_capacity{"+here+"}")

var dashboards = []dashboard{fleet, gateway, mobility, datapath, control}

var fleet = dashboard{
	name: "fleet", title: "fleet", about: "All gateways at a glance: is it healthy, and if not, which gateway is it.",
	panels: []panel{
		{kind: "stat", title: "Gateways answering", unit: "short", width: 4, about: "Gateways whose data path and RIB could be read. A gateway that is down is missing here, and up{job=\"roam\"} is 0.", queries: []query{{`sum(roam_scrape_success{` + here + `})`, "gateways"}}},
		{kind: "stat", title: "Locators out of reach", unit: "short", width: 5, bad: "1", about: "Tunnel ends that some gateway's underlay knows no way to. Remedy: roamctl site list there.", queries: []query{{`sum(1 - roam_locator_up{` + here + `})`, "locators"}}},
		{kind: "stat", title: "Sources down", unit: "short", width: 5, bad: "1", about: "Origins of routes that do not report. What they said last stays in force. Remedy: roamctl status there.", queries: []query{{`sum(1 - roam_source_up{` + here + `})`, "sources"}}},
		{kind: "stat", title: "Drops", unit: "pps", width: 5, about: "Packets dropped by all gateways together; the data-path dashboard has the reasons.", queries: []query{{`sum(` + rate("roam_packets_total", dropped) + `)`, "drops"}}},
		{kind: "stat", title: "Hosts", unit: "short", width: 5, about: "Hosts that the gateway which knows most knows, here and elsewhere.", queries: []query{{`max(` + sum("instance", `roam_hosts{`+here+`}`) + `)`, "hosts"}}},
		{kind: "timeseries", title: "Forwarded packets", unit: "pps", width: 12, about: "Packets sent into tunnels, delivered or answered, by gateway.", queries: []query{{sum("instance", rate("roam_packets_total", forwarded)), "{{instance}}"}}},
		{kind: "timeseries", title: "Forwarded traffic", unit: "bps", width: 12, about: "Bits of the frames as they arrived that were forwarded, by gateway.", queries: []query{{"8 * " + sum("instance", rate("roam_bytes_total", forwarded)), "{{instance}}"}}},
		{kind: "timeseries", title: "Dropped packets", unit: "pps", width: 12, about: "Drops by gateway. A few are normal: expired TTLs, broken senders.", queries: []query{{sum("instance", rate("roam_packets_total", dropped)), "{{instance}}"}}},
		{kind: "timeseries", title: "Moves", unit: "cps", width: 12, about: "Hosts that changed their home, as each gateway saw it.", queries: []query{{sum("instance", rate("roam_host_moves_total", here)), "{{instance}}"}}},
		{kind: "timeseries", title: "Host tables", unit: "percentunit", width: 12, about: "How full the fuller of the two host tables is. They grow by themselves when full.", queries: []query{{`max by (instance) (roam_table_entries{` + here + `,table=~"hosts.+"} / roam_table_capacity{` + here + `,table=~"hosts.+"})`, "{{instance}}"}}},
		{kind: "timeseries", title: "Ports by mode", unit: "short", width: 12, about: "native is the fast one; generic is slow and was asked for; none: nothing is attached, roamctl doctor says why.", queries: []query{{sum("instance, mode", `roam_port_info{`+here+`}`), "{{instance}} {{mode}}"}}},
		{kind: "table", title: "Versions", unit: "none", width: 24, about: "What runs where.", queries: []query{{`roam_build_info{` + here + `}`, ""}}},
	},
}

var gateway = dashboard{
	name: "gateway", title: "one gateway", about: "Everything of one gateway on one page.", one: true,
	panels: []panel{
		{kind: "stat", title: "Running for", unit: "s", width: 6, about: "Since the daemon started. Forwarding does not depend on it and may be older.", queries: []query{{`time() - process_start_time_seconds{` + here + `}`, "uptime"}}},
		{kind: "stat", title: "Hosts here", unit: "short", width: 6, about: "Hosts that live at this site.", queries: []query{{`sum(roam_hosts{` + here + `,state="here"})`, "here"}}},
		{kind: "stat", title: "Generation", unit: "none", width: 6, about: "Of the data path's programs and tables. It goes up with each upgrade and growth. Shadow is 1 where nothing of what is counted happened.", queries: []query{{`roam_datapath_generation{` + here + `}`, "generation"}, {`roam_shadow{` + here + `}`, "shadow"}}},
		{kind: "stat", title: "Drops", unit: "pps", width: 6, about: "Dropped packets, all reasons.", queries: []query{{`sum(` + rate("roam_packets_total", dropped) + `)`, "drops"}}},
		{kind: "timeseries", title: "Packets by verdict", unit: "pps", width: 12, about: "Forwarded by XDP, passed to the kernel, dropped.", queries: []query{
			{`sum(` + rate("roam_packets_total", forwarded) + `)`, "forwarded"},
			{`sum(` + rate("roam_packets_total", passed) + `)`, "passed"},
			{`sum(` + rate("roam_packets_total", dropped) + `)`, "dropped"},
		}},
		{kind: "timeseries", title: "Traffic by port", unit: "bps", width: 12, about: "Bits of the frames that arrived at each port.", queries: []query{{"8 * " + sum("port", rate("roam_bytes_total", here)), "{{port}}"}}},
		{kind: "timeseries", title: "Traffic into tunnels", unit: "bps", width: 12, about: "Bits of the frames, as they arrived, sent to each locator.", queries: []query{{"8 * " + sum("locator", rate("roam_locator_bytes_total", here)), "{{locator}}"}}},
		{kind: "state-timeline", title: "Locators", unit: "none", width: 12, states: true, about: "Whether the underlay knows the way to each tunnel end.", queries: []query{{`roam_locator_up{` + here + `}`, "{{locator}}"}}},
		{kind: "bargauge", title: "Tables", unit: "percentunit", width: 8, bad: "0.9", about: "How full each table of the data path is.", queries: []query{{fill, "{{table}}"}}},
		{kind: "timeseries", title: "Hosts by state", unit: "short", width: 8, about: "here; elsewhere: reached through a tunnel; held: left moments ago, what still arrives is sent on.", queries: []query{{sum("state", `roam_hosts{`+here+`}`), "{{state}}"}}},
		{kind: "table", title: "Ports", unit: "none", width: 8, about: "How the program is attached: anything but native is worth a look at roamctl doctor.", hidden: []string{"instance"}, queries: []query{{`roam_port_info{` + here + `}`, ""}}},
		{kind: "timeseries", title: "Memory of the daemon", unit: "bytes", width: 12, about: "Resident memory. The mapped host table is part of it.", queries: []query{{`process_resident_memory_bytes{` + here + `}`, "resident"}}},
		{kind: "timeseries", title: "Processor time of the daemon", unit: "percentunit", width: 12, about: "Of one processor. The data path's own time is the kernel's and not in it.", queries: []query{{rate("process_cpu_seconds_total", here), "daemon"}}},
	},
}

var mobility = dashboard{
	name: "mobility", title: "mobility", about: "Moves: how many, how long they took, and what sites disagree about.",
	panels: []panel{
		{kind: "timeseries", title: "Moves", unit: "cps", width: 12, about: "Hosts that changed their home, by gateway and tenant. Each gateway counts what it hears of.", queries: []query{{sum("instance, tenant", rate("roam_host_moves_total", here)), "{{instance}} {{tenant}}"}}},
		{kind: "timeseries", title: "Hosts by state", unit: "short", width: 12, about: "Held hosts left moments ago; what tunnels still bring for them is sent on.", queries: []query{{sum("instance, state", `roam_hosts{`+here+`}`), "{{instance}} {{state}}"}}},
		{kind: "timeseries", title: "Outage of a move", unit: "s", width: 12, about: "Time in which a gateway knew no way to a host that moved: half of the moves, and all but one in a hundred, were faster. Gaps in the curve: nothing moved.", queries: []query{
			{quantile("0.5", "", "roam_host_move_outage_seconds"), "half"},
			{quantile("0.99", "", "roam_host_move_outage_seconds"), "99 %"},
		}},
		{kind: "heatmap", title: "Outage of moves, spread", unit: "s", width: 12, about: "The same, every move counted. Two bands are two kinds of moves: announced, and found out.", queries: []query{{sum("le", `increase(roam_host_move_outage_seconds_bucket{`+here+`}[$__rate_interval])`), "{{le}}"}}},
		{kind: "timeseries", title: "Detection", unit: "s", width: 12, about: "From a host's first sign at a gateway to the decision that it moved; all but one in a hundred were faster.", queries: []query{{quantile("0.99", "instance", "roam_host_move_detection_seconds"), "{{instance}}"}}},
		{kind: "timeseries", title: "From first sign to first packet", unit: "s", width: 12, about: "Of hosts that moved to a gateway, since their first sign there: until their claim was given to BGP, and until the first packet was delivered; all but one in a hundred were faster.", queries: []query{
			{quantile("0.99", "instance", "roam_host_move_announcement_seconds"), "{{instance}} announced"},
			{quantile("0.99", "instance", "roam_host_move_first_packet_seconds"), "{{instance}} first packet"},
		}},
		{kind: "timeseries", title: "Estimated outage", unit: "s", width: 12, about: "Of hosts that left a gateway: from when they were last heard there to the first packet that it sent to their new home. Too long where nobody had anything to say.", queries: []query{
			{quantile("0.5", "instance", "roam_host_move_estimated_outage_seconds"), "{{instance}} half"},
			{quantile("0.99", "instance", "roam_host_move_estimated_outage_seconds"), "{{instance}} 99 %"},
		}},
		{kind: "timeseries", title: "Sent on after a move", unit: "pps", width: 12, about: "Packets a tunnel brought for a host that had left. For longer than the hold time after a move: some site has not learned the new place.", queries: []query{{sum("instance", rate("roam_packets_total", here+`,reason="fwd_reencap"`)), "{{instance}}"}}},
		{kind: "timeseries", title: "Sites disagree", unit: "pps", width: 12, about: "Packets that came through a tunnel for a host that does not live here, that would go back, or that went round. Compare roamctl route get at both ends.", queries: []query{{sum("instance, reason", rate("roam_packets_total", here+`,reason=~"drop_tunnel_(loop|back|ttl)"`)), "{{instance}} {{reason}}"}}},
		{kind: "timeseries", title: "Moves and changes of word", unit: "cps", width: 12, about: "Events of roamctl events: move, and claim, where another source has the word about a host that stays.", queries: []query{{sum("instance, kind", rate("roam_events_total", here+`,kind=~"move|claim"`)), "{{instance}} {{kind}}"}}},
		{kind: "timeseries", title: "Signs of hosts", unit: "cps", width: 12, about: "What the data path saw of hosts, by kind: it is how a host is found. lost: signs that nobody read in time; the next packet brings another.", queries: []query{{sum("instance, kind", rate("roam_sightings_total", here)), "{{instance}} {{kind}}"}}},
		{kind: "timeseries", title: "Neighbours answered", unit: "pps", width: 12, about: "ARP requests and neighbour solicitations answered for gateway addresses and for hosts that live elsewhere. Rises after a move.", queries: []query{{sum("instance, reason", rate("roam_packets_total", here+`,reason=~"fwd_(arp|nd)"`)), "{{instance}} {{reason}}"}}},
		{kind: "timeseries", title: "Claims that were not simply taken", unit: "short", width: 8, about: "By what became of them, in this time range so far: defended and kept are conflicts that got nothing, frozen and not_allowed want a look. Remedy: roamctl events --kind conflict --kind frozen.", queries: []query{{sum("instance, outcome", `increase(roam_host_claims_total{`+here+`}[$__range])`), "{{instance}} {{outcome}}"}}},
		{kind: "timeseries", title: "Frozen hosts", unit: "short", width: 8, about: "Hosts that moved too often and stay where they were. Remedy: roamctl host list, roamctl host clear.", queries: []query{{`roam_hosts_frozen{` + here + `}`, "{{instance}}"}}},
		{kind: "timeseries", title: "Multicast groups", unit: "short", width: 8, about: "Listened to on each access port, for the solicitations of IPv6 hosts elsewhere. A link has 16384 at most.", queries: []query{{`roam_multicast_groups{` + here + `}`, "{{instance}} {{port}}"}}},
		{kind: "timeseries", title: "Answers on its segments", unit: "short", width: 12, about: "1: this gateway is designated and answers ARP and ND on the segment; 0: another one is. Two of one site at 1: their LAN is split. Remedy: roamctl status, roamctl events --kind designated --kind standby.", queries: []query{{`roam_segment_designated{` + here + `}`, "{{instance}} {{segment}}"}}},
		{kind: "timeseries", title: "Other gateways on a segment", unit: "short", width: 12, about: "That are heard by their hellos. None where there should be one: it is down, or the LAN between them is.", queries: []query{{`roam_segment_other_gateways{` + here + `}`, "{{instance}} {{segment}}"}}},
		{kind: "timeseries", title: "Runs of the host hook", unit: "cps", width: 24, about: "Of hooks.host_change, by how they ended. What failed is run again, less and less often. Remedy: roamctl events --kind hook_failed.", queries: []query{{sum("instance, outcome", rate("roam_hook_runs_total", here)), "{{instance}} {{outcome}}"}}},
	},
}

var datapath = dashboard{
	name: "datapath", title: "data path", about: "What happened to packets, and why: the reasons are those of docs/reasons.md.",
	panels: []panel{
		{kind: "timeseries", title: "Forwarded, by reason", unit: "pps", width: 8, about: "fwd_encap: into a tunnel; fwd_deliver: to a host here; fwd_reencap: on after a move; fwd_arp and fwd_nd: answered.", queries: []query{{sum("reason", rate("roam_packets_total", forwarded)), "{{reason}}"}}},
		{kind: "timeseries", title: "Passed to the kernel, by reason", unit: "pps", width: 8, about: "Not an error. pass_resolve for long: a host does not answer ARP or ND.", queries: []query{{sum("reason", rate("roam_packets_total", passed)), "{{reason}}"}}},
		{kind: "timeseries", title: "Dropped, by reason", unit: "pps", width: 8, about: "docs/reasons.md has the usual cause and the remedy of each.", queries: []query{{sum("reason", rate("roam_packets_total", dropped)), "{{reason}}"}}},
		{kind: "timeseries", title: "Share dropped", unit: "percentunit", width: 8, about: "Of all packets that met the program, by gateway.", queries: []query{{sum("instance", rate("roam_packets_total", dropped)) + " / " + sum("instance", rate("roam_packets_total", here)), "{{instance}}"}}},
		{kind: "timeseries", title: "Mean frame", unit: "bytes", width: 8, about: "Mean size of the frames that arrived, by port. Large drops with drop_mtu: raise the underlay's MTU.", queries: []query{{sum("instance, port", rate("roam_bytes_total", here)) + " / " + sum("instance, port", rate("roam_packets_total", here)), "{{instance}} {{port}}"}}},
		{kind: "bargauge", title: "Drops in this time range", unit: "short", width: 8, about: "By reason, over the whole range that the page shows.", queries: []query{{sum("reason", `increase(roam_packets_total{`+dropped+`}[$__range])`), "{{reason}}"}}},
		{kind: "timeseries", title: "Packets into tunnels", unit: "pps", width: 12, about: "By gateway and locator. Two locators of one site share by weight.", queries: []query{{sum("instance, locator", rate("roam_locator_packets_total", here)), "{{instance}} to {{locator}}"}}},
		{kind: "timeseries", title: "Traffic into tunnels", unit: "bps", width: 12, about: "Bits of the frames as they arrived, by gateway and locator.", queries: []query{{"8 * " + sum("instance, locator", rate("roam_locator_bytes_total", here)), "{{instance}} to {{locator}}"}}},
		{kind: "state-timeline", title: "Locators", unit: "none", width: 12, states: true, about: "Whether each gateway's underlay knows the way to each tunnel end.", queries: []query{{`roam_locator_up{` + here + `}`, "{{instance}} to {{locator}}"}}},
		{kind: "timeseries", title: "Tables", unit: "percentunit", width: 12, about: "How full each table is. Host tables grow when full; next hops and locators do not.", queries: []query{{fill, "{{instance}} {{table}}"}}},
		{kind: "timeseries", title: "Refused by drivers", unit: "pps", width: 24, about: "Packets that the driver of an egress port refused after they were counted as forwarded: a queue is full, or the interface is down.", queries: []query{{sum("instance, port", rate("roam_refused_packets_total", here)), "{{instance}} {{port}}"}}},
		{kind: "timeseries", title: "Round trip through tunnels", unit: "s", width: 8, about: "Of small probes, which the far data path answers: half, and all but one in a hundred, were faster.", queries: []query{
			{quantile("0.5", "instance", "roam_probe_round_trip_seconds"), "{{instance}} median"}, {quantile("0.99", "instance", "roam_probe_round_trip_seconds"), "{{instance}} 99 %"},
		}},
		{kind: "timeseries", title: "Probes lost", unit: "percentunit", width: 8, about: "Share of small probes that no answer came to, as far as that is known yet. All of them: a gateway that is no Roam, or one that is gone.", queries: []query{{"clamp_max(" + sum("instance, locator", rate("roam_probes_lost_total", here)) + " / " + sum("instance, locator", rate("roam_probes_sent_total", here)) + ", 1)", "{{instance}} to {{locator}}"}}},
		{kind: "state-timeline", title: "MTU holes", unit: "none", width: 8, states: true, about: "1 where a size gets lost on the way to a locator that should pass. Remedy: roamctl events --kind mtu_hole.", queries: []query{{`1 - roam_locator_mtu_hole{` + here + `}`, "{{instance}} to {{locator}}"}}},
	},
}

var control = dashboard{
	name: "control", title: "control plane", about: "Where routes come from, how fast they take effect, and how the daemon fares.",
	panels: []panel{
		{kind: "state-timeline", title: "Sources", unit: "none", width: 12, states: true, about: "Whether each origin of routes reports. What it said last stays in force while it does not.", queries: []query{{`roam_source_up{` + here + `}`, "{{instance}} {{source}}"}}},
		{kind: "state-timeline", title: "Sessions", unit: "none", width: 12, states: true, about: "With neighbours of BGP, and of locators that BFD watches. One of BFD that never was up may be a gateway that does not speak it. Remedy: roamctl session list.", queries: []query{{`roam_session_up{` + here + `}`, "{{instance}} {{protocol}} {{neighbor}}"}}},
		{kind: "timeseries", title: "Sessions lost", unit: "short", width: 12, about: "Times that a session went down, in this time range so far.", queries: []query{{sum("instance, protocol, neighbor", `increase(roam_session_flaps_total{`+here+`}[$__range])`), "{{instance}} {{protocol}} {{neighbor}}"}}},
		{kind: "timeseries", title: "Changes", unit: "cps", width: 12, about: "Changes reported by each source. A source that never rests is worth a look.", queries: []query{{sum("instance, source", rate("roam_source_changes_total", here)), "{{instance}} {{source}}"}}},
		{kind: "timeseries", title: "Routes", unit: "short", width: 12, about: "Claims by source and tenant, winning or not.", queries: []query{{sum("instance, source, tenant", `roam_routes{`+here+`}`), "{{instance}} {{source}} {{tenant}}"}}},
		{kind: "timeseries", title: "From report to forwarding", unit: "s", width: 12, about: "From a source's report to the tables holding what came of it; all but one in a hundred were faster. Large reports take longer. Gaps: nothing was reported.", queries: []query{{quantile("0.99", "instance, source", "roam_route_to_forwarding_seconds"), "{{instance}} {{source}}"}}},
		{kind: "timeseries", title: "Not yet taken", unit: "short", width: 12, about: "Decisions that a reader of the RIB, such as the data path, could not take and is offered again. 0 is right.", queries: []query{{`roam_sink_behind{` + here + `}`, "{{instance}} {{sink}}"}}},
		{kind: "timeseries", title: "Events", unit: "cps", width: 12, about: "By kind, as roamctl events tells them.", queries: []query{{sum("kind", rate("roam_events_total", here)), "{{kind}}"}}},
		{kind: "timeseries", title: "Scrape", unit: "s", width: 8, about: "How long a scrape takes. It does not depend on the number of hosts.", queries: []query{{`scrape_duration_seconds{` + here + `}`, "{{instance}}"}}},
		{kind: "timeseries", title: "Series of a scrape", unit: "short", width: 8, about: "Bounded by what is configured: ports, reasons, locators, tenants, sources; never by hosts.", queries: []query{{`scrape_samples_scraped{` + here + `}`, "{{instance}}"}}},
		{kind: "timeseries", title: "Generation of the data path", unit: "none", width: 8, about: "Each step up is an upgrade, or a table that grew.", queries: []query{{`roam_datapath_generation{` + here + `}`, "{{instance}}"}}},
	},
}
