package lab

import (
	_ "embed"
	"fmt"
	"strings"
	"text/template"
)

// Config is what a lab says in a gateway's configuration file. Addresses and prefixes are text, as in the file.
type Config struct {
	Site       string
	Underlay   []string // interfaces
	Locators   []string
	Public     map[string]string // of locators behind NAT: what others send to
	RouterMAC  string
	BFD        string // the mapping, as text; empty for none
	Probe      string // likewise
	Peers      []Peer
	VNI        int
	Uplinks    []string // interfaces
	Access     string   // interface
	VLAN       int
	Fabric     string // MAC of the router behind the access port, empty for a LAN
	Subnets    []string
	Role       string // default or stick
	Shared     []string
	GatewayMAC string // empty for the default
	Own        []string
	Routers    []string
	Lifetime   string   // of the gateway in router advertisements, empty for the default
	Foreign    []string // MACs of gateways elsewhere, whose frames are to be routed
	Source     string   // datapath.source_check, empty for the default
	Hold       string   // empty for the default
	Mobility   string   // the whole mapping, as text, in place of Hold; empty for none
	KeepTTL    bool     // no TTL is taken between hosts of the subnet
	Home       string   // of the segment, empty for none
	Egress     string   // of the segment, as text; empty for the default
	RouteFile  string
	FIBTable   int
	L2VNI      int // of the segment, 0 for none
	BGP        *BGP
	Hook       string // the program that hears of hosts, empty for none
	Socket     string
	Metrics    string // address and port
	Mode       string // of XDP, native where empty
	Hosts      int
	Pin        string
	Shadow     bool
}

// BGP is a gateway's speaker. Neighbours are entries of the configuration, as text.
type BGP struct {
	ASN       int
	Neighbors []string
}

// Peer is another site in a gateway's configuration.
type Peer struct {
	Site     string
	Locators []PeerLocator
}

// PeerLocator is a tunnel end of another site. An empty Encap and a zero Priority leave the defaults.
type PeerLocator struct {
	Address   string
	Encap     string
	RouterMAC string
	Priority  int
}

//go:embed gateway.yaml.tmpl
var configText string

var configTemplate = template.Must(template.New("gateway").Funcs(template.FuncMap{
	"join": func(list []string) string { return strings.Join(list, ", ") },
	"quoted": func(list []string) string {
		var quoted []string
		for _, s := range list {
			quoted = append(quoted, fmt.Sprintf("%q", s))
		}
		return strings.Join(quoted, ", ")
	},
}).Parse(configText))

// YAML is the configuration file.
func (c Config) YAML() (string, error) {
	var text strings.Builder
	err := configTemplate.Execute(&text, c)
	return text.String(), err
}
